// Package replicate copies repositories of the registry to other registries and keeps the copies up to date.
//
// # Words
//
// A rule says which repositories and tags go to which registry (the target) and under which names. A job is one tag, or one manifest that refers
// to another (a signature), that has to be brought to a target or taken away there; or a manifest that was deleted here with
// whatever tags it had. A plan is the comparison of all that a rule
// covers with what the target has.
//
// # The life of a job
//
// A push makes jobs by its event; a plan that is applied makes them for all that differs; a rule with an interval is planned and applied again and
// again. Jobs lie on disk, one for each rule, repository and reference: a tag that is pushed ten times is one job. The rule's worker takes
// those that are due and asks the target what the tag is there. If it is the same nothing is sent; else it sends, innermost first, what the target
// lacks: blobs (mounted where they are known to lie in another repository there), the manifests of an index, the manifest,
// what refers to it, and then the tag. What a job does is decided when it is done, from what the storage holds then. A job that fails is tried
// again, later each time, for about a day; then it has failed and stays in the list until it is retried or its tag is pushed again.
//
// After an end that was no Close every rule is planned and applied once: an event may have been lost between the push and the disk.
//
// Two registries may replicate to each other: what arrives there already has the digest that it would be sent with.
//
// # On disk
//
//	DIR/rules.json   the rules, with passwords: 0600
//	DIR/jobs.db      bbolt: "jobs" rule NUL repository NUL reference → Job; "meta" format, and "open" while the registry runs
//
// # Routes
//
//	GET    /berth/registry/v1/replication                  the rules and how they do
//	GET    /berth/registry/v1/replication/{name}
//	PUT    /berth/registry/v1/replication/{name}           Rule; without password the old one stays
//	DELETE /berth/registry/v1/replication/{name}           with its jobs; the target keeps what it has
//	GET    /berth/registry/v1/replication/{name}/jobs      what waits and what has failed
//	POST   /berth/registry/v1/replication/{name}/plan      Plan; as text for Accept: text/plain
//	POST   /berth/registry/v1/replication/{name}/apply     {"plan": ID}: makes the plan's jobs; 409 when it is no longer the same. No ID: whatever it is
//	POST   /berth/registry/v1/replication/{name}/retry     failed jobs are tried again
//
// The package never changes anything here, and at a target only what a rule covers.
package replicate
