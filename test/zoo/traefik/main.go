// Command traefik runs the Docker provider of Traefik on an engine's socket and prints each configuration that it makes of the containers
// there, a line of JSON each. It is a module of its own: what Traefik requires meets nothing of ours.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/provider/docker"
	"github.com/traefik/traefik/v3/pkg/safe"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: traefik ENDPOINT, such as unix:///run/berth/berth.sock")
	}
	var p docker.Provider
	p.SetDefaults()
	p.Endpoint = os.Args[1]
	if err := p.Init(); err != nil {
		return err
	}
	made := make(chan dynamic.Message, 10)
	if err := p.Provide(made, safe.NewPool(context.Background())); err != nil {
		return err
	}
	for m := range made {
		line, err := json.Marshal(m.Configuration)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}
