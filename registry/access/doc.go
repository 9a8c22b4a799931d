// Package access says who may do what to which repository of the registry.
//
// Words. A subject is whoever makes a request: a user with his groups, or nobody in particular (anonymous). An action is
// pull, push, delete or admin; a role is a set of them (reader: pull; writer: pull and push; maintainer: also delete; owner: all). A
// principal is who a role is given to: "user:alice", "group:dev", "signed-in", "anyone". An organisation is the first
// element of a repository's name: team/web belongs to team. It has owners, grants that hold in all of its
// repositories, and the visibility that a new repository gets. A repository is public (anyone pulls) or private, and has
// grants of its own. The first user who pushes to a new repository becomes its owner.
//
// Rules is all of that as one value that is never changed; Decide, a pure function over it, gives a verdict with its
// reason, which `berth registry access explain` prints. Store keeps the rules on disk and in memory: a change makes new
// Rules, is written and synced, and only then replaces the old ones.
//
// The life of a repository: unknown → claimed by the first push (Claim) → its visibility and grants changed → forgotten
// (Forget). A repository that was emptied stays its owner's, so that nobody puts something else under a name that others trust.
//
// The package never checks a password (auth does), and never looks at what repositories hold (registry/storage does).
package access
