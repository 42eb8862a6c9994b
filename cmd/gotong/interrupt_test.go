package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gotong/tasks/guests"
)

// TestInterruptedRunsSayWhatWasRunning sends Ctrl-C to a run whose tasks have no
// end.
func TestInterruptedRunsSayWhatWasRunning(t *testing.T) {
	g := newGrid(t)
	ctx := testContext(t)
	you, err := g.Found(ctx, "you")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "--home", you.Home, "run", "--json", guest(t, guests.Spin), ":::", "1000000", "2000000")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, time.Minute, "a task runs", func() (bool, error) {
		var status struct {
			Giving struct {
				Busy int `json:"slots_busy"`
			} `json:"giving"`
		}
		err := you.JSON(ctx, &status, "status")
		return status.Giving.Busy > 0, err
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("%v, want exit code 130; %s", err, stderr.String())
	}
	seen := map[string]string{}
	for line := range strings.Lines(stdout.String()) {
		var l struct{ Type, Item string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		seen[l.Type] = l.Item
	}
	if _, ok := seen["summary"]; seen["running"] != "1000000" || !ok || !strings.Contains(stderr.String(), "0 of 2 tasks done") {
		t.Errorf("it printed %s%s", stdout.String(), stderr.String())
	}
}
