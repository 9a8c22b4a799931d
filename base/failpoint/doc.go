// Package failpoint has named places in the code where a test can make the process die, fail or wait.
//
// A point is a name, "room/what": `failpoint.Hit("image/before-commit")`. All points are off until main
// calls Arm with the text of BERTH_FAILPOINTS; an unarmed point costs one atomic load.
//
//	BERTH_FAILPOINTS = point {"," point}
//	point            = name "=" action [":" n]        n: only the n-th hit acts; without it every hit does
//	name             = "room/what" | "*"              "*": every point, each counted by itself
//	action           = "kill" | "error" | "sleep:" duration | "note:" file
//
// "note" appends the name of the point to a file: so a test learns which points its work passes, and how often.
//
//	BERTH_FAILPOINTS=image/before-commit=kill:3,engine/start=sleep:10ms
//
// The armed set belongs to the process, as its environment does; it is the one thing here that is
// not passed by hand. The package never reads the environment itself.
package failpoint
