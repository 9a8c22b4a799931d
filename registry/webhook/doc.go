// Package webhook tells others what happened in the registry, in Docker's notification format.
//
// # Words
//
// An endpoint is a URL that wants to be told, with its filters and its patience. An event is what is sent
// (Event; made from a notice.Event), an envelope what it is sent in: POST, Content-Type
// application/vnd.docker.distribution.events.v1+json, body {"events": [EVENT]}, one event each. Any answer
// of 2xx is "told".
//
// # Life of an event
//
//	Notify → in memory (bounded) → queue of each endpoint that wants it, on disk → told, and removed
//
// Notify never waits. The events of one moment go to disk in one transaction; kill -9 loses what arrived
// since the last one, a few milliseconds' worth. From then on an event is told at least once, in order within an
// endpoint: after a crash or a lost answer it may come twice, with the same id. A queue is bounded
// (Endpoint.QueueLimit); when it is full the oldest event goes and is counted as dropped, and so does what could not
// be told for three days.
//
// After Threshold failures in a row the endpoint is left alone for Backoff, then for twice that, up to a minute
// (or Backoff, if that is longer), until it takes one again.
//
// # Trust
//
// With a secret, each request carries X-Berth-Signature: sha256=HEX, the HMAC-SHA256 of the body; this is our own
// addition. Secrets and the values of headers are never shown again once they were set.
//
// The registry sends these requests from where it stands: whoever may add an endpoint can make it send a POST to
// anything that it can reach (server-side request forgery). So only administrators may add one; link-local and
// multicast addresses, where clouds keep a machine's credentials, are refused after names were resolved; redirects are not
// followed; nothing of an answer is shown but its status. Keep the registry away from networks in which a POST by itself
// does harm.
//
// # On disk
//
//	FILE   bbolt, format 1
//	  meta       "format" → "1"
//	  endpoints  NAME → JSON Endpoint, with its secret
//	  queues     NAME → bucket of sequence number (8 bytes, big endian) → JSON Event
//
// # Routes
//
// For administrators; bodies and answers are JSON, errors {"message": TEXT}:
//
//	GET    /berth/registry/v1/webhooks             [{Endpoint without secret, "status": Status}]
//	GET    /berth/registry/v1/webhooks/NAME        the same, of one
//	PUT    /berth/registry/v1/webhooks/NAME        Endpoint → 204; replaces; the queue stays
//	DELETE /berth/registry/v1/webhooks/NAME        → 204; its queue goes with it
//	POST   /berth/registry/v1/webhooks/NAME/test   sends one event with action "ping" now → {"status": HTTP STATUS} or an error
//
// The package never decides what is worth telling beyond an endpoint's filters and never reads content.
package webhook
