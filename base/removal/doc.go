// Package removal has the words in which rooms say what would be removed, what was, and what can be had back.
//
// A Plan is made by observing and changes nothing. It names things by what cannot be taken for anything else, and notes what each
// looked like (Look). Whoever applies it removes those of its things that still look like that, and nothing else: what has changed
// since is skipped, and said. A plan may be printed, kept in a file and applied later.
//
// What was removed into a trash is a Trashed until its time is over.
//
// The package decides nothing and removes nothing.
package removal
