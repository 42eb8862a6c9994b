package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// guest writes one of the embedded modules to a file.
func guest(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".wasm")
	if err := os.WriteFile(path, guests.Module(name), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type taskLine struct {
	Type     string `json:"type"`
	Index    int    `json:"index"`
	Item     string `json:"item"`
	Peer     string `json:"peer"`
	State    string `json:"state"`
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Why      string `json:"why"`
	Tasks    int    `json:"tasks"`
	Done     int    `json:"done"`
	Failed   int    `json:"failed"`
	Retried  int    `json:"retried"`
}

// run runs a command line of gotong run and returns its lines; err is that of
// the command.
func run(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) (lines []taskLine, err error) {
	t.Helper()
	err = p.Lines(ctx, func(line []byte) error {
		var l taskLine
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		lines = append(lines, l)
		return nil
	}, append([]string{"run"}, args...)...)
	return lines, err
}

// runOn runs n small tasks and returns how many each peer did.
func runOn(ctx context.Context, t *testing.T, p *localgrid.Peer, n int) map[string]int {
	t.Helper()
	args := []string{guest(t, guests.Spin), "50", ":::"}
	for i := range n {
		args = append(args, strconv.Itoa(i))
	}
	lines, err := run(ctx, t, p, args...)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, l := range lines {
		if l.Type == "task" {
			seen[l.Peer]++
		}
	}
	return seen
}
