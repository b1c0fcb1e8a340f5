// spire is the SPIRE that the tests run against: its real server and agent in one binary, built from published Go modules only. The first
// argument picks the program; the rest are that program's own commands and flags.
package main

import (
	"context"
	"fmt"
	"os"

	agent "github.com/spiffe/spire/cmd/spire-agent/cli"
	server "github.com/spiffe/spire/cmd/spire-server/cli"
)

func main() {
	program := ""
	if len(os.Args) > 1 {
		program = os.Args[1]
	}
	switch program {
	case "server":
		os.Exit(new(server.CLI).Run(context.Background(), os.Args[2:]))
	case "agent":
		os.Exit(new(agent.CLI).Run(context.Background(), os.Args[2:]))
	default:
		fmt.Fprintln(os.Stderr, "usage: spire {server|agent} [command and flags of spire-server or spire-agent]")
		os.Exit(2)
	}
}
