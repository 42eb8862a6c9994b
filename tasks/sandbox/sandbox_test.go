package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
)

func guestModule(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openLauncher(t testing.TB) *Launcher {
	t.Helper()
	l, err := OpenLauncher(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// testLimits are small enough that a test meets them quickly.
func testLimits() tasks.Limits {
	return tasks.Limits{
		MemoryBytes: 32 << 20,
		Wall:        20 * time.Second,
		StdoutBytes: 64 << 10,
		StderrBytes: 4 << 10,
		OutputBytes: 1 << 20,
		OutputFiles: 32,
	}
}

func start(t testing.TB, module string, change func(*Config)) *Child {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Module: guestModule(t, module), Limits: testLimits()}
	if change != nil {
		change(&cfg)
	}
	c, err := openLauncher(t).Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// do runs one request and waits for its outcome.
func do(t testing.TB, c *Child, r Request) Outcome {
	t.Helper()
	out := make(chan Outcome, 1)
	if _, err := c.Submit(r, func(o Outcome) { out <- o }); err != nil {
		t.Fatal(err)
	}
	return <-out
}

func run(t testing.TB, c *Child, args ...string) Outcome {
	t.Helper()
	return do(t, c, Request{Args: args})
}

func wantDone(t testing.TB, o Outcome) {
	t.Helper()
	if o.State != tasks.StateDone {
		t.Fatalf("state %s (%s), stdout %q, stderr %q; want done", o.State, o.Why, o.Stdout, o.Stderr)
	}
}

func wantLimit(t testing.TB, o Outcome, limit tasks.Limit) {
	t.Helper()
	if o.State != tasks.StateLimit || o.Limit != limit || o.Why == "" {
		t.Fatalf("state %s, limit %q (%s); want limit %s", o.State, o.Limit, o.Why, limit)
	}
}

func TestArgumentsAndExitCodes(t *testing.T) {
	c := start(t, "probe", nil)
	o := run(t, c, "echo", "one", "", "drei ü")
	wantDone(t, o)
	if got, want := string(o.Stdout), "one\n\ndrei ü\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if o := run(t, c, "exit", "42"); o.State != tasks.StateFailed || o.ExitCode != 42 || o.Why == "" {
		t.Errorf("exit 42: %+v", o)
	}
	if o := run(t, c, "abort"); o.State != tasks.StateFailed || o.ExitCode != tasks.NoExitCode || !strings.Contains(o.Why, "unreachable") {
		t.Errorf("abort: %+v", o)
	}
	wantDone(t, run(t, c, "exit", "0"))
	if !strings.HasPrefix(c.Engine(), "wazero-v") {
		t.Errorf("engine %q", c.Engine())
	}
}

func TestNothingOfTheMachineShows(t *testing.T) {
	t.Setenv("SECRET", "visible")
	c := start(t, "probe", nil)
	o := do(t, c, Request{Args: []string{"env"}, Seed: [32]byte{1}})
	wantDone(t, o)
	const want = `environment 0
wall 1577836800.001000000
wall 1577836800.002000000
wall 1577836800.003000000
monotonic 0.004000000
after an hour 3600.005000000
random 6ae6783f4fbde91b
stdin -1
`
	if got := string(o.Stdout); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSameRequestSameOutcome also holds between two children, and whatever ran
// in between.
func TestSameRequestSameOutcome(t *testing.T) {
	a, b := start(t, "probe", nil), start(t, "probe", nil)
	ask := func(c *Child) string {
		o := do(t, c, Request{Args: []string{"env"}, Seed: [32]byte{7}})
		wantDone(t, o)
		return string(o.Stdout)
	}
	first := ask(a)
	wantDone(t, run(t, b, "files"))
	wantLimit(t, run(t, b, "flood"), tasks.LimitStdout)
	if second, again := ask(b), ask(a); first != second || first != again {
		t.Errorf("outcomes differ:\n%s\n%s\n%s", first, second, again)
	}
	if o := do(t, a, Request{Args: []string{"env"}}); string(o.Stdout) == first {
		t.Error("another seed gave the same randomness")
	}
}

// TestNothingIsLeftOfEarlierGuests reads memory that an earlier guest filled.
func TestNothingIsLeftOfEarlierGuests(t *testing.T) {
	c := start(t, "probe", nil)
	for _, size := range []string{"1000", "200000", "8000000", "4000000", "9000000"} {
		o := run(t, c, "dirty", size)
		wantDone(t, o)
		if got, want := string(o.Stdout), "dirty 0 170\n"; got != want {
			t.Errorf("%s bytes: %q, want %q", size, got, want)
		}
	}
	wantDone(t, run(t, c, "put", "/out/left", "5"))
	if o := run(t, c, "cat", "/out/left"); o.State != tasks.StateFailed {
		t.Errorf("a file of an earlier guest is there: %+v", o)
	}
}

func TestWindowAndOrder(t *testing.T) {
	c := start(t, "probe", nil)
	const requests = 200
	var order []string
	ended := make(chan struct{})
	credit := make(chan struct{}, Window)
	for i := range requests {
		credit <- struct{}{}
		_, err := c.Submit(Request{Args: []string{"echo", strconv.Itoa(i)}}, func(o Outcome) {
			order = append(order, strings.TrimSpace(string(o.Stdout)))
			if len(order) == requests {
				close(ended)
			}
			<-credit
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	for i, got := range order {
		if got != strconv.Itoa(i) {
			t.Fatalf("outcome %d is of request %s", i, got)
		}
	}
}

func TestWindowIsBounded(t *testing.T) {
	c := start(t, "probe", nil)
	outcomes := make(chan Outcome, Window)
	for range Window {
		if _, err := c.Submit(Request{Args: []string{"spin"}}, func(o Outcome) { outcomes <- o }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Submit(Request{}, func(Outcome) {}); !errors.Is(err, tasks.ErrBusy) {
		t.Errorf("one more than Window: %v, want ErrBusy", err)
	}
	c.Close()
	if o := <-outcomes; o.State != tasks.StateLost {
		t.Errorf("the running request: %+v, want lost", o)
	}
	for range Window - 1 {
		if o := <-outcomes; !o.NotRun {
			t.Errorf("a waiting request: %+v, want NotRun", o)
		}
	}
	if _, err := c.Submit(Request{}, func(Outcome) {}); !errors.Is(err, ErrEnded) {
		t.Errorf("after Close: %v, want ErrEnded", err)
	}
}

func TestAbandon(t *testing.T) {
	c := start(t, "probe", nil)
	outcomes := make(chan Outcome, 3)
	submit := func(args ...string) *Run {
		r, err := c.Submit(Request{Args: args}, func(o Outcome) { outcomes <- o })
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	patience := func(grace time.Duration) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.grace = grace
	}
	patience(time.Hour) // a short run takes long on a busy machine
	short := submit("exit", "0")
	short.Abandon()
	if o := <-outcomes; o.State != tasks.StateDone {
		t.Errorf("a short run that was abandoned: %+v, want done", o)
	}
	patience(abandonGrace)
	submit("exit", "0")
	spinning := submit("spin")
	submit("exit", "0")
	spinning.Abandon()
	if o := <-outcomes; o.State != tasks.StateDone {
		t.Errorf("a run before one that was abandoned: %+v, want done", o)
	}
	if o := <-outcomes; o.State != tasks.StateCancelled {
		t.Errorf("an endless run that was abandoned: %+v, want cancelled", o)
	}
	if o := <-outcomes; !o.NotRun {
		t.Errorf("the run behind it: %+v, want NotRun", o)
	}
	<-c.Ended()
}

func TestLayers(t *testing.T) {
	c := start(t, "noop", nil)
	layers, err := openLauncher(t).Layers(context.Background(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range c.Layers() {
		dynamic := l.Name == LayerMounts && strings.HasSuffix(l.Why, "(build it with CGO_ENABLED=0)")
		if runtime.GOOS == "linux" && !l.Active && l.Name != LayerCgroup && !dynamic { // no cgroup was given
			t.Errorf("layer %s is not active: %s", l.Name, l.Why)
		}
	}
	if err := Refusal(layers); err != nil {
		t.Error(err)
	}
	if got, want := len(layers), len(c.Layers()); got != want {
		t.Errorf("%d layers asked for, want %d", got, want)
	}
	layers[0] = Layer{Name: "landlock", Required: true, Why: "no such thing"}
	if err := Refusal(layers); !errors.Is(err, tasks.ErrSandbox) || !strings.Contains(err.Error(), "landlock: no such thing") {
		t.Errorf("refusal without a required layer: %v", err)
	}
}

// TestEngineVersion keeps the name in results true.
func TestEngineVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/tetratelabs/wazero " + engineVersion + "\n"; !strings.Contains(string(mod), want) {
		t.Errorf("go.mod has no line %q", want)
	}
}

func TestStartCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := openLauncher(t).Start(ctx, Config{Dir: t.TempDir(), Module: guestModule(t, "noop"), Limits: testLimits()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}

func TestStartOfSomethingElse(t *testing.T) {
	for _, binary := range []string{"/nowhere/at/all", "/bin/true"} {
		l, err := OpenLauncher(Options{Executable: binary})
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Start(context.Background(), Config{Dir: t.TempDir(), Module: guestModule(t, "noop"), Limits: testLimits()})
		if err == nil {
			t.Errorf("%s is a sandbox child", binary)
		}
		l.Close()
	}
}
