// Package metrics counts what the registry does and shows it to Prometheus.
//
// # Words
//
// A route is what a request was for, out of a short list (manifest, blob, upload, tags, referrers, catalog, ping, token,
// search, page, admin, metrics, other): never a path, so that a stranger cannot make the registry remember a million of
// them. A gauge that is asked (storage size, queue lengths) is a function given at New, called when somebody looks.
//
// # Series
//
//	berth_registry_requests_total{route,method,code}      requests answered
//	berth_registry_request_seconds{route}                 histogram of the time to answer
//	berth_registry_requests_in_flight                     requests being answered
//	berth_registry_received_bytes_total{route}            bytes of request bodies
//	berth_registry_sent_bytes_total{route}                bytes of answers
//	berth_registry_uploads_in_flight                      PATCH, PUT and POST of blobs that are running
//	berth_registry_auth_failures_total{reason}            credentials, guessing, unavailable
//	berth_registry_upstream_requests_total{upstream,kind,result}   hit, miss, stale, error; kind manifest or blob
//	berth_registry_upstream_bytes_total{upstream}         bytes fetched from upstreams
//	berth_registry_gc_runs_total{result}                  ok, error
//	berth_registry_gc_seconds                             how long the last run took
//	berth_registry_gc_blobs_total, berth_registry_gc_bytes_total   what collections have removed
//	berth_registry_gc_last_success_timestamp_seconds
//	berth_registry_retention_removed_total{what}          tag, manifest
//	berth_registry_webhook_pending{endpoint}              and _delivered_total, _dropped_total, _failures
//	berth_registry_storage_bytes, berth_registry_repositories
//	go_*, process_*                                       of the runtime
//
// # Who may look
//
// Handler shows them to administrators and to the names in Config.Readers; to everybody only when Config.Anonymous
// says so: repository counts and traffic are nobody's business by default. Everybody is for an address of its own.
//
// The package never counts by repository or user: their number has no bound.
package metrics
