// Command gotong is a peer of a volunteer grid and the tool to use it.
package main

import (
	"os"

	"gotong/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
