// Package idmap maps user and group ids between user namespaces.
//
// Words. A Map is a list of ranges; a Range says that Size ids from Inside (in the namespace) are the ids
// from Outside (in its parent). A subordinate range is a block of host ids that /etc/subuid or
// /etc/subgid gives to a user. A Pair is a map for users and one for groups, which always go together.
//
// A map's life: from words (Parse) or from subordinate ranges → Check → written once to /proc/PID/uid_map (by the
// launch program, or by WriteByHelpers where the engine is no root), or made into the descriptor of a namespace that
// belongs to such a user namespace (NetNamespace). The package decides no ranges and changes no owner of any file.
package idmap
