// Package remote is networks of plugins: programs beside the engine that speak Docker's remote network driver protocol
// ("NetworkDriver", as weave, calico's and vendors' plugins do).
//
// The life of an endpoint: CreateEndpoint tells the plugin its addresses, or gets them from it; Join tells it the namespace and
// gets the name of a link on the host, gateways and routes; the link is then moved into the namespace and renamed here, since the
// protocol leaves that to the engine. Leave, the link goes back to the host under its first name, DeleteEndpoint: the plugin finds
// everything where it had put it.
//
// A plugin remembers its networks over restarts of the engine, and most refuse a network that they know already. Which ones were
// told it is therefore written down, one empty file per network, and Create of one of those asks nothing.
//
// Every wait is bounded by package plugin. When Join fails in the middle, what was done is taken back.
//
// It gives no addresses of its own choice, sets no addresses and routes in the container, and makes no firewall rules.
package remote
