package disktest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dirVariable tells the process that is traced in which directory to work.
const dirVariable = "GOTONG_TRACED_DIR"

// sayFile is where it says what it did: the file after the standard ones.
const sayFile = 3

// Case is a test that fails its own work at each call.
type Case struct {
	// Prepare fills a new directory before the work; nil: it is empty.
	Prepare func(dir string)
	// Work is done in a process of its own and killed anywhere. What it says was
	// heard by somebody when say returns.
	Work func(dir string, say func(line string))
	// Check looks at what a stopped process left and said. Errors of calls may
	// also have let the work go on to its end.
	Check func(dir string, said []string, when string)
	// Faults are the errors that calls are made to give, beside the kills.
	Faults []syscall.Errno
	// Calls is how many calls there must be at least.
	Calls int
}

// EachCall runs the work of a case again and again, each time with one call
// failing that changes a file, and checks what is left. It is to be called by a
// test function, once; in the process that works it does not return.
//
// With REQUIRE_PTRACE=1 calls give errors too. Without it processes are only
// killed, at one call of seven, and the test is skipped where nothing can be
// traced, or with -short.
func EachCall(t *testing.T, c Case) {
	t.Helper()
	if dir := os.Getenv(dirVariable); dir != "" {
		c.work(t, dir)
	}
	step := 1
	if !required() {
		c.Faults, step = nil, 7
		if testing.Short() {
			t.Skip("runs a process for each call")
		}
	}
	for _, errno := range append([]syscall.Errno{0}, c.Faults...) {
		name := "kill"
		if errno != 0 {
			name = errno.Error()
		}
		for n := 1; ; n += step {
			dir := filepath.Join(t.TempDir(), "work")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if c.Prepare != nil {
				c.Prepare(dir)
			}
			calls, said := run(t, dir, Fault{At: n, Errno: errno})
			if len(calls) < n {
				c.Check(dir, said, name+" nowhere")
				if len(calls) < c.Calls {
					t.Errorf("%s: only %d calls were seen: %q", name, len(calls), calls)
				}
				break
			}
			c.Check(dir, said, fmt.Sprintf("%s at call %d (%s)", name, n, calls[n-1]))
			if t.Failed() {
				t.FailNow()
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func required() bool { return os.Getenv("REQUIRE_PTRACE") == "1" }

// work is what the traced process does.
func (c Case) work(t *testing.T, dir string) {
	out := os.NewFile(sayFile, "what is said")
	c.Work(dir, func(line string) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	os.Exit(0)
}

// run runs the test that calls it once more, with a fault.
func run(t *testing.T, dir string, fault Fault) (calls, said []string) {
	t.Helper()
	heard, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	output, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	lines := make(chan []string, 1)
	go func() {
		var all []string
		for in := bufio.NewReader(heard); ; {
			line, err := in.ReadString('\n')
			if err != nil { // what was not said to its end was not heard
				lines <- all
				return
			}
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// One thread at a time and no collection: each run makes the same calls.
	env := append(os.Environ(), dirVariable+"="+dir, "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	args := []string{program, "-test.run=^" + t.Name() + "$", "-test.count=1"}
	calls, status, err := trace(program, args, env, []uintptr{0, output.Fd(), output.Fd(), say.Fd()}, dir, fault)
	err = errors.Join(err, say.Close())
	said = <-lines
	switch {
	case errors.Is(err, syscall.EPERM) && !required():
		t.Skip("processes may not be traced here:", err)
	case err != nil:
		t.Fatal(err)
	case status.Signaled() && status.Signal() == syscall.SIGKILL && fault.Errno == 0 && len(calls) == fault.At:
	case !status.Exited() || status.ExitStatus() != 0:
		_, _ = output.Seek(0, io.SeekStart)
		text, _ := io.ReadAll(output)
		t.Fatalf("the process failed by itself (%v) with %+v of %q:\n%s", status, fault, calls, text)
	}
	return calls, said
}
