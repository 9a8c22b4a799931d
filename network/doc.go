// Package network is networks, endpoints, names and ports: it joins a container's network namespace to the networks it asks for.
package network
