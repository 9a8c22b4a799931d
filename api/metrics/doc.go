// Package metrics counts what the engine does and shows it to Prometheus, at the address that --metrics-addr names.
//
// # Series
//
// Those of Docker's daemon, by its names, so that its dashboards go on working:
//
//	engine_daemon_engine_info{version,commit,architecture,graphdriver,kernel,os,os_type,os_version,daemon_id}   1
//	engine_daemon_engine_cpus_cpus, engine_daemon_engine_memory_bytes
//	engine_daemon_container_states_containers{state}        running, paused, stopped
//	engine_daemon_container_actions_seconds{action}         histogram: changes, commit, create, delete, start
//	engine_daemon_image_actions_seconds{action}             histogram: delete, list, load, pull, push, save, search
//	engine_daemon_network_actions_seconds{action}           histogram: connect, create, disconnect, list, remove
//	engine_daemon_events_total
//	engine_daemon_health_checks_total, engine_daemon_health_checks_failed_total
//
// and Berth's own:
//
//	berth_requests_total{route,method,code}, berth_request_seconds{route}   of the API; a route is a pattern, never a path
//	berth_container_*{id,name,image}                                        of running containers, read when somebody looks
//	go_*, process_*                                                         of the engine's own process
//
// # Life
//
// New makes the counters. The API's server tells Answered of each request, the bus tells of events; everything else is asked when
// somebody looks. What a look reads are snapshots and cgroup files: it waits for no verb at work on a container.
package metrics
