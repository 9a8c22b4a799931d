// Package expand turns a Dockerfile with INCLUDE, IF and FOR into a plain one that any builder takes.
//
//	# berth:expand
//	ARG FLAVOUR=small
//	INCLUDE base.dockerfile
//	IF $FLAVOUR == small
//	RUN rm -rf /usr/share/doc
//	ELSE
//	RUN apt-get install -y less
//	END
//	FOR tool IN curl jq
//	RUN apt-get install -y $tool
//	END
//
// A file is asked to be expanded by its first line, or on the command line; nothing else is ever touched. Instructions are copied as they
// stand, comments and line breaks too. Conditions and lists see the ARGs that are in scope where they stand, with Docker's rules of scope. The
// name of a FOR, and names that INCLUDE gives, are replaced as text in what they govern.
//
// The life of a file: parse (BuildKit's own parser finds where instructions begin and end) → a tree of items → written out, each line with
// the place that it came from. The places lead an error of the builder back to the line that somebody wrote.
//
// Expansion happens before the build: values that only a build knows, platforms and ENV, are no part of it, and a condition that asks for one is
// refused. Only files below the root that it was given are read.
package expand
