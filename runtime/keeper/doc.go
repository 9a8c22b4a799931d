// Package keeper is the client's side of berth-keeper, the one small process that is the parent of
// all containers.
package keeper
