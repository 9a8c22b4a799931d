// Package upstream is the registry's pull-through cache: repositories of other registries, fetched when somebody
// asks for them, kept, and served from here also when the other registry does not answer.
//
// # Words
//
// A source is another registry, with the rule that says which names here are its. With a prefix ("hub") the repository hub/nginx
// here is nginx there; without one names are the same on both sides, and Docker Hub's nginx is library/nginx, which is what a
// docker engine asks its mirror for. Sources with a prefix come first, the longest first; the others are asked in their order until one has the
// repository. A copy is a repository here that was fetched: which source it came from is written down before anything of it is stored, and
// only that source is asked for it from then on. A repository that somebody pushed is never a copy: no upstream can add to it.
//
// # The life of a copy
//
// A tag is asked of the source (HEAD) when the last answer is older than the source's freshness, one minute unless it says
// otherwise. What changed is fetched, verified, and stored. Content by digest is fetched once. When the source fails (it does not answer, it
// has a limit, it no longer lets us in) the copy is served with its age and a warning; only when the source says that there is no such
// thing, so do we, and that is remembered for a while so that it is not asked again each time.
//
// The storage accepts a manifest only when all that it names is there, and nobody waits for that: a manifest that was fetched is served from
// waiting until its blobs have come. A blob is fetched once however many ask for it: it streams into an unlinked file, from
// which the storage and all clients read while it grows. The last byte is handed out when the digest is verified. Of an image that
// somebody began to pull all is fetched when the clients have gone quiet, so that the copy is whole, whatever layers they had already.
//
// What refers to a manifest is fetched when its list is asked for, before the list is read from the storage.
//
// A tag that is pushed into a copy is the pusher's: it is no longer asked of the source, until it is deleted.
//
// # On disk
//
//	DIR/sources.json   the sources, with passwords: 0600
//	DIR/copies.db      bbolt: "copies" repository → source; "tags" repository NUL tag → digest and when it was checked;
//	                   "waiting" repository NUL digest → manifest whose blobs have not all come
//
// # Routes
//
//	GET    /berth/registry/v1/mirrors                the sources and how they do
//	GET    /berth/registry/v1/mirrors/{name}
//	PUT    /berth/registry/v1/mirrors/{name}         Source; without password the old one stays
//	DELETE /berth/registry/v1/mirrors/{name}         what was copied stays, and is a repository like others
//	POST   /berth/registry/v1/mirrors/{name}/check   asks whether the source answers: {"answers": bool, "message": …}
//
// The package never decides who may pull; it never changes what was pushed here.
package upstream
