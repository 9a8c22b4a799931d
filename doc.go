// Package berth is the root of the repository. It holds no code: only house_test.go, the floor test,
// which keeps the import rules of docs/house.md. The listing of this directory is the plan of the
// product; docs/tour.md walks through it.
package berth
