package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// said is what one command line of the program printed and how it ended.
type said struct {
	stdout, stderr string
	code           int
}

// gotong runs one command line as a user would.
func gotong(ctx context.Context, t *testing.T, stdin string, args ...string) said {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GOTONG_GOSSIP_PRESET=local", "GOTONG_DISCOVERY_MDNS=false")
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// want fails the test when a command ended otherwise or its error lacks words.
func (s said) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if s.code != code {
		t.Errorf("exit code %d, want %d: %s", s.code, code, s.stderr)
	}
	for _, w := range words {
		if !strings.Contains(s.stdout+s.stderr, w) {
			t.Errorf("%q is not in %q", w, s.stdout+s.stderr)
		}
	}
}

// newHome is a home for join in the tests, with the flags that keep it small.
func newHome(t *testing.T, args ...string) []string {
	t.Helper()
	return append([]string{"--home", shortTempDir(t) + "/h", "--listen", "127.0.0.1:0", "--give", "1GB", "--slots", "1"}, args...)
}

// invite returns a code of the peer.
func invitation(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) string {
	t.Helper()
	var made struct{ Code string }
	if err := p.JSON(ctx, &made, append([]string{"invite"}, args...)...); err != nil {
		t.Fatal(err)
	}
	return made.Code
}

// listed is one line of peers --json.
type listed struct{ ID, Name, Owner, Site, State, Address string }

func peersOf(ctx context.Context, t *testing.T, p *localgrid.Peer) []listed {
	t.Helper()
	var list struct{ Peers []listed }
	if err := p.JSON(ctx, &list, "peers"); err != nil {
		t.Fatal(err)
	}
	return list.Peers
}

// running is the process of a peer that a test started itself.
type running struct {
	cmd  *exec.Cmd
	done chan error
	log  *bytes.Buffer
}

// up starts the peer of a home and returns when it serves. It is killed with
// the test at the latest.
func up(t *testing.T, home string) *running {
	t.Helper()
	cmd := exec.Command(os.Args[0], "--home", home, "up", "--json")
	cmd.Env = append(os.Environ(), asProgram+"=1", "GOTONG_GOSSIP_PRESET=local", "GOTONG_DISCOVERY_MDNS=false")
	r := &running{cmd: cmd, done: make(chan error, 1), log: &bytes.Buffer{}}
	cmd.Stderr = r.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready struct{ Type string }
	err = json.NewDecoder(stdout).Decode(&ready)
	go func() { r.done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err != nil || ready.Type != "ready" {
		t.Fatalf("%s is not up: %+v, %v\n%s", home, ready, err, <-r.done)
	}
	return r
}

// end asks the peer to stop, which it must within the limit that it has itself.
func (r *running) end(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("it ended with %v\n%s", err, r.log)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
}
