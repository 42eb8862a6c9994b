package sandbox

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"gotong/tasks"
	"gotong/tasks/guests"
)

// stage puts data where a request finds it as an input called name.
func stage(t testing.TB, c *Child, name string, data []byte) tasks.Input {
	t.Helper()
	in := tasks.Input{Name: name, Size: int64(len(data))}
	in.Content[0], in.Content[1] = byte(len(data)), byte(len(name))
	if err := os.WriteFile(c.InputPath(in.Content), data, 0o400); err != nil {
		t.Fatal(err)
	}
	return in
}

// output returns the bytes of a file of an outcome, and drops it if spilled.
func output(t testing.TB, c *Child, f File) []byte {
	t.Helper()
	if !f.Spilled() {
		return f.Data
	}
	r, err := c.OpenOutput(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DropOutput(f); err != nil {
		t.Fatal(err)
	}
	return b
}

// pattern is what the guest's put writes.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 65536 * 31)
	}
	return b
}

// spilled counts the host files of a child's outputs.
func spilled(t testing.TB, c *Child) int {
	t.Helper()
	list, err := os.ReadDir(c.dir + "/" + outputDir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestInputs(t *testing.T) {
	c := start(t, "probe", nil)
	inputs := []tasks.Input{
		stage(t, c, "b.txt", []byte("second\n")),
		stage(t, c, "a.txt", []byte("first\n")),
		stage(t, c, "sub/dir/c.txt", []byte("third line\n")),
	}
	o := do(t, c, Request{Args: []string{"cat", "/in/a.txt", "in/b.txt", "./in/sub/../sub/dir/c.txt"}, Inputs: inputs})
	wantDone(t, o)
	if got, want := string(o.Stdout), "first\nsecond\nthird line\n"; got != want {
		t.Errorf("cat: %q, want %q", got, want)
	}
	for path, want := range map[string]string{
		"/":   ". dir 0 1 1577836800\nin dir 0 2 1577836800\nout dir 0 8 1577836800\n",
		"/in": ". dir 0 2 1577836800\na.txt file 6 4 1577836800\nb.txt file 7 3 1577836800\nsub dir 0 5 1577836800\n",
	} {
		o := do(t, c, Request{Args: []string{"ls", path}, Inputs: inputs})
		wantDone(t, o)
		if got := string(o.Stdout); got != want {
			t.Errorf("ls %s:\n%s\nwant\n%s", path, got, want)
		}
	}
	for _, args := range [][]string{
		{"put", "/in/a.txt", "1"}, {"put", "/in/new", "1"}, {"put", "/new", "1"},
		{"cat", "/in/missing"}, {"cat", "/in/a.txt/"}, {"cat", "/in/a.txt/x"},
	} {
		if o := do(t, c, Request{Args: args, Inputs: inputs}); o.State != tasks.StateFailed || o.ExitCode != 1 {
			t.Errorf("%v: %+v, want exit code 1", args, o)
		}
	}
	if o := run(t, c, "cat", "/in/a.txt"); o.State != tasks.StateFailed {
		t.Error("a request sees the inputs of another")
	}
}

func TestStandardInput(t *testing.T) {
	c := start(t, "probe", func(cfg *Config) {
		cfg.Module, cfg.Limits.StdoutBytes = guests.Module(guests.Cat), 1<<20
	})
	text := bytes.Repeat([]byte("a line of standard input\n"), 10_000)
	in := stage(t, c, "x", text)
	o := do(t, c, Request{Stdin: in.Content, StdinSize: in.Size})
	wantDone(t, o)
	if !bytes.Equal(o.Stdout, text) {
		t.Errorf("%d bytes of %d came through", len(o.Stdout), len(text))
	}
	if o := do(t, c, Request{}); o.State != tasks.StateDone || len(o.Stdout) != 0 {
		t.Errorf("without standard input: %+v", o)
	}
	o = do(t, c, Request{Args: []string{"-", "x"}, Inputs: []tasks.Input{in}, Stdin: in.Content, StdinSize: 7})
	if want := "a line " + string(text); o.State != tasks.StateDone || string(o.Stdout) != want {
		t.Errorf("beside an input: %s, %d bytes, want %d", o.State, len(o.Stdout), len(want))
	}
	if o := do(t, c, Request{Stdin: tasks.ContentID{1}, StdinSize: 1}); o.State != tasks.StateFailed {
		t.Errorf("not staged: %+v", o)
	}
}

func TestOutputs(t *testing.T) {
	c := start(t, "probe", nil)
	o := run(t, c, "files")
	wantDone(t, o)
	want := map[string]string{"d/small": "\x00\x1f\x3e\x5d\x7ctail", "z": "\x00\x1f\x3e"}
	for _, f := range o.Files {
		if got := string(output(t, c, f)); got != want[f.Name] || f.Size != int64(len(got)) {
			t.Errorf("%s: %q, want %q", f.Name, got, want[f.Name])
		}
		delete(want, f.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if n := spilled(t, c); n != 0 {
		t.Errorf("%d files are left of one that was removed", n)
	}
}

func TestLargeOutputIsSpilled(t *testing.T) {
	c := start(t, "probe", nil)
	for _, size := range []int{0, 1, spillBytes, spillBytes + 1, 700_000} {
		o := run(t, c, "put", "/out/file", itoa(size))
		wantDone(t, o)
		if len(o.Files) != 1 || o.Files[0].Name != "file" || o.Files[0].Spilled() != (size > spillBytes) {
			t.Fatalf("%d bytes: %+v", size, o.Files)
		}
		if got := output(t, c, o.Files[0]); !bytes.Equal(got, pattern(size)) {
			t.Errorf("%d bytes came back as %d others", size, len(got))
		}
	}
	if n := spilled(t, c); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func TestOutputLimits(t *testing.T) {
	c := start(t, "probe", nil)
	wantLimit(t, run(t, c, "put", "/out/big", itoa(1<<20+1)), tasks.LimitOutput)
	wantDone(t, do(t, c, Request{Args: []string{"many", "32"}}))
	wantLimit(t, run(t, c, "many", "33"), tasks.LimitOutput)
	o := run(t, c, "hold") // beside the root, which is open too
	wantDone(t, o)
	if got, want := string(o.Stdout), "held "+itoa(maxOpenFiles-1)+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if n := spilled(t, c); n != 0 {
		t.Errorf("%d files are left of runs without an exit code", n)
	}
}

func TestOutputNames(t *testing.T) {
	c := start(t, "probe", nil)
	for _, name := range []string{"a\\b", "a:b", "a\nb", "\xff", strings.Repeat("n", 256)} {
		if o := run(t, c, "put", "/out/"+name, "1"); o.State != tasks.StateFailed || o.ExitCode != 1 {
			t.Errorf("%q: %+v, want refused", name, o)
		}
	}
	for _, name := range []string{".hidden", "spaces and ünïcode", strings.Repeat("n", 255)} {
		o := run(t, c, "put", "/out/"+name, "1")
		wantDone(t, o)
		if len(o.Files) != 1 || o.Files[0].Name != name {
			t.Errorf("%q came back as %+v", name, o.Files)
		}
	}
}
