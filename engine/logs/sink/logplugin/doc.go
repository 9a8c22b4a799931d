// Package logplugin hands records to log plugins of Docker's plugin protocol (subsystem LogDriver): a FIFO for each container, which the
// plugin is told of and reads.
//
//	POST /LogDriver.StartLogging {"File": FIFO, "Info": {…}}      before the first record, and after the plugin stopped reading
//	POST /LogDriver.StopLogging  {"File": FIFO}
//
//	FIFO:  length (32 bits, big-endian) · LogEntry (package localfile draws it), again and again
//
// There is no acknowledgement: what the FIFO took is taken, 64 KiB at most that a plugin which dies takes with it. Docker's own logs command is
// served from the spool, whatever the plugin can do.
package logplugin
