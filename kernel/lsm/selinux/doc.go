// Package selinux labels containers for SELinux's type enforcement and multi category security.
//
// Words. A label is user:role:type:level as SELinux writes it. A container's process label confines its
// processes, its mount label marks its files; both carry a pair of categories in their level that no
// other container of the engine has, so that containers of the same type cannot reach each other.
//
// Life of a pair: Labels takes one when a container is created (Labeller.Reserve when an engine finds
// the container again), Release gives it back when the container is removed.
//
// The package never changes the label of the process it runs in and writes no policy. It uses nothing
// beside the kernel's files and /etc/selinux, and costs nothing until it is called.
package selinux
