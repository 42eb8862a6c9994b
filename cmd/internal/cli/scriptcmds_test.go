package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	controlv1 "gotong/proto/control/v1"

	"gotong/grid/node"
	"gotong/tasks/guests"
)

const readyWait = 2 * time.Minute

// exitCodeIs is "code N gotong ARGS…": the command must end with that code. What it
// printed can be matched with "stdout" and "stderr" as after exec.
func exitCodeIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N gotong ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// writeGuest is "guest NAME": it writes a module to NAME.wasm.
func writeGuest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: guest NAME")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".wasm"), guests.Module(args[0]), 0o600))
}

// waitReady is "ready HOME N": it returns when the peer of that home serves and
// sees N peers alive.
func waitReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ready HOME N")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), readyWait)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = aliveIs(ctx, ts.MkAbs(args[0]), want); last == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	ts.Fatalf("%s is not ready with %d peers: %v", args[0], want, last)
}

func aliveIs(ctx context.Context, home string, want int) error {
	conn, err := node.DialControl(ctx, home)
	if err != nil {
		return err
	}
	defer conn.Close()
	list, err := controlv1.NewControlClient(conn).Peers(ctx, &controlv1.PeersRequest{})
	if err != nil {
		return err
	}
	var states bytes.Buffer
	alive := 0
	for _, p := range list.Peers {
		states.WriteString(p.Name + " " + p.State + ", ")
		if p.State == "alive" {
			alive++
		}
	}
	if alive != want {
		return errors.New(strings.TrimSuffix(states.String(), ", "))
	}
	return nil
}

// appendConfig is "appendconfig FILE LINES": it appends the second file to the
// first, with environment variables put in.
func appendConfig(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: appendconfig FILE LINES")
	}
	file := ts.MkAbs(args[0])
	lines := os.Expand(ts.ReadFile(args[1]), ts.Getenv)
	ts.Check(os.WriteFile(file, []byte(ts.ReadFile(args[0])+lines), 0o600))
}

// until is "until PATTERN gotong ARGS…": it runs the command until its output
// matches; "! until" until it does not.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until PATTERN gotong ARGS…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(readyWait); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) != neg {
			return
		}
	}
	ts.Fatalf("no output matches %s", args[0])
}

// firstID is "firstid": ID becomes the first id in the output.
func firstID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: firstid")
	}
	found := regexp.MustCompile(`[0-9a-f]{64}`).FindString(ts.ReadFile("stdout"))
	if found == "" {
		ts.Fatalf("no id in the output")
	}
	ts.Setenv("ID", found)
}
