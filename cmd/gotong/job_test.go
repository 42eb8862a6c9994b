package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// jobDoc is what job show tells.
type jobDoc struct {
	ID         string
	State      string
	Tasks      int
	Done       int
	Failed     int
	Why        string
	Epoch      int
	Driver     string
	Generation int
	Remembered int
	Keepers    []struct{ ID, Name string }
	Steps      []struct{ Name, State string }
	Peers      []struct {
		ID           string
		Done, Failed int
	}
}

// jobDir makes a directory with a job file and what it needs.
func jobDir(t *testing.T, text string, files map[string]string) (file string) {
	t.Helper()
	dir := shortTempDir(t)
	files["job.yaml"] = text
	for name, data := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(data), 0o600))
	}
	for _, name := range []string{guests.Echo, guests.Noop, guests.Wordcount, guests.Outfile, guests.Cat, guests.Exit, guests.Spin} {
		must(t, os.WriteFile(filepath.Join(dir, name+".wasm"), guests.Module(name), 0o600))
	}
	return filepath.Join(dir, "job.yaml")
}

func submit(ctx context.Context, t *testing.T, p *localgrid.Peer, file string) string {
	t.Helper()
	var out struct{ Job string }
	must(t, p.JSON(ctx, &out, "submit", file))
	if len(out.Job) != 64 {
		t.Fatalf("job %q", out.Job)
	}
	return out.Job
}

func showJob(ctx context.Context, t *testing.T, p *localgrid.Peer, id string) (j jobDoc) {
	t.Helper()
	must(t, p.JSON(ctx, &j, "job", "show", id[:10]))
	return j
}

// documented returns the example of docs/jobs.md.
func documented(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/jobs.md")
	must(t, err)
	example := regexp.MustCompile("(?s)```yaml\n(name:.*?)```").FindSubmatch(page)
	if example == nil {
		t.Fatal("docs/jobs.md has no example")
	}
	return string(example[1])
}

// TestDocumentedJob: the job file of the documentation runs as it stands, and
// its results are those of the programs.
func TestDocumentedJob(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 2)
	file := jobDir(t, documented(t), map[string]string{
		"texts/one.txt": "one two, one\n", "texts/two.txt": strings.Repeat("word ", 40_000), "extra.txt": "the end",
	})
	id := submit(ctx, t, you, file)
	must(t, you.JSON(ctx, nil, "job", "wait", id))
	j := showJob(ctx, t, you, id)
	if j.State != "done" || j.Tasks != 5 || j.Done != 5 || len(j.Keepers) == 0 || len(j.Steps) != 3 || j.Epoch == 0 {
		t.Errorf("%+v", j)
	}
	wantResults(ctx, t, you, id, map[string]string{
		"count/%2Fin%2Ftexts%2Fone.txt/stdout": "2 one\n1 two\n", "count/%2Fin%2Ftexts%2Ftwo.txt/stdout": "40000 word\n",
		"note/%2Fin%2Ftexts%2Fone.txt/out/summary-1.txt": "seen", "all/0/stdout": "seenseenthe end",
	})
}

// wantResults fetches the results of a job and compares some of the files.
func wantResults(ctx context.Context, t *testing.T, p *localgrid.Peer, id string, files map[string]string) {
	t.Helper()
	to := filepath.Join(shortTempDir(t), "results")
	must(t, p.JSON(ctx, nil, "job", "results", id, "--to", to))
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
}

// TestJobFailsAndIsRetried: a job with a task that fails says so, and a retry
// runs only that one again.
func TestJobFailsAndIsRetried(t *testing.T) {
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s"})
	you, _ := grow(ctx, t, g, 1)
	id := submit(ctx, t, you, jobDir(t, "steps:\n- module: exit.wasm\n  args: ['{}', text]\n  items: ['0', '3', '0']\n", map[string]string{}))
	if code, what := failure(t, you.JSON(ctx, nil, "job", "wait", id)); code != 1 || !strings.Contains(what, "1 failed") {
		t.Errorf("%d %s", code, what)
	}
	must(t, you.JSON(ctx, nil, "job", "retry", id))
	eventually(ctx, t, time.Minute, "the job is over again", func() (bool, error) {
		j := showJob(ctx, t, you, id)
		return j.Generation == 1 && j.State == "failed" && j.Done == 2, nil
	})
	if code, what := failure(t, you.JSON(ctx, nil, "job", "cancel", id)); code != 1 || !strings.Contains(what, "over already") {
		t.Errorf("%d %s", code, what)
	}
}

// TestDetachedJobsRemember: what was fetched of one job need not run in the next
// one of its owner, unless that is to run everything. What is begun anew runs.
func TestDetachedJobsRemember(t *testing.T) {
	ctx := testContext(t)
	g := newGridWith(t, []string{"GOTONG_TASKS_KEEPER_LEASE=2s"})
	you, _ := grow(ctx, t, g, 3)
	file := jobDir(t, "steps:\n- name: a\n  module: exit.wasm\n  args: ['{}', text]\n  items: ['0', '3', '0']\n  on_failure: ignore\n- module: echo.wasm\n  name: b\n  needs: [a]\n", map[string]string{})
	fetch := func(id string) {
		t.Helper()
		must(t, you.JSON(ctx, nil, "job", "wait", id))
		must(t, you.JSON(ctx, nil, "job", "results", id, "--to", filepath.Join(shortTempDir(t), "results")))
	}
	first := submit(ctx, t, you, file)
	fetch(first)
	if j := showJob(ctx, t, you, first); j.State != "done" || j.Remembered != 0 {
		t.Errorf("%+v", j)
	}
	second := submit(ctx, t, you, file)
	fetch(second)
	if j := showJob(ctx, t, you, second); j.State != "done" || j.Remembered != 3 || j.Done != 3 || j.Failed != 1 {
		t.Errorf("%+v", j)
	}
	var out struct{ Job string }
	must(t, you.JSON(ctx, &out, "submit", "--no-cache", file))
	fetch(out.Job)
	if j := showJob(ctx, t, you, out.Job); j.State != "done" || j.Remembered != 0 {
		t.Errorf("%+v", j)
	}
	must(t, you.JSON(ctx, nil, "job", "retry", second))
	eventually(ctx, t, time.Minute, "the job is over again", func() (bool, error) {
		j := showJob(ctx, t, you, second)
		return j.Generation == 1 && j.State == "done" && j.Remembered == 2, nil
	})
	line := []string{guest(t, guests.Echo), ":::", "of a", "command line"} // waited for or not
	_, err := run(ctx, t, you, line...)
	must(t, err)
	must(t, you.JSON(ctx, &out, append([]string{"run", "--detach"}, line...)...))
	must(t, you.JSON(ctx, nil, "job", "wait", out.Job))
	if j := showJob(ctx, t, you, out.Job); j.State != "done" || j.Remembered != 2 {
		t.Errorf("%+v", j)
	}
}

// TestLargeStandardOutput: what is too long for a result comes out in order and whole,
// of a run, of a job, and as the standard input of its next step.
func TestLargeStandardOutput(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 2)
	sizes := []int{5_000_000, 3, 2<<20 + 1, 6 << 20}
	var want bytes.Buffer
	var items []string
	for _, n := range sizes {
		items = append(items, strconv.Itoa(n))
		want.Write(bytes.Repeat([]byte("0123456789"), n/10+1)[:n])
	}
	same := func(name string, got []byte, err error) {
		t.Helper()
		must(t, err)
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: %d bytes, want %d", name, len(got), want.Len())
		}
	}
	got, err := you.Command(ctx, append([]string{"run", guest(t, guests.Flood), ":::"}, items...)...).Output()
	same("run", got, err)

	const steps = "steps:\n- name: say\n  module: flood.wasm\n  items: [%s]\n- name: copy\n  module: cat.wasm\n  needs: [{step: say, stdin: true}]\n  args: ['-']\n"
	id := submit(ctx, t, you, jobDir(t, fmt.Sprintf(steps, "'"+strings.Join(items, "', '")+"'"), map[string]string{"flood.wasm": string(guests.Module(guests.Flood))}))
	must(t, you.JSON(ctx, nil, "job", "wait", id))
	got, err = you.Command(ctx, "job", "logs", "--step", "copy", id).Output()
	same("logs", got, err)
	to := filepath.Join(shortTempDir(t), "results")
	must(t, you.JSON(ctx, nil, "job", "results", id, "--to", to))
	got, err = os.ReadFile(filepath.Join(to, "copy", "0", "stdout"))
	same("results, joined", got, err)
	got = nil
	for _, item := range items {
		text, err := os.ReadFile(filepath.Join(to, "say", item, "stdout"))
		must(t, err)
		got = append(got, text...)
	}
	same("results", got, nil)
}

// TestJobWhy: every peer that may not run a job is named with the rule.
func TestJobWhy(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	id := submit(ctx, t, you, jobDir(t, "where: name == \"nobody\"\nsteps:\n- module: noop.wasm\n", map[string]string{}))
	must(t, friends[1].Kill())
	var why struct {
		Matching int
		Words    string
		Peers    []struct {
			Fits    bool
			Reasons []string
		}
	}
	must(t, you.JSON(ctx, &why, "job", "why", id))
	if why.Matching != 0 || len(why.Peers) != 3 || !strings.Contains(why.Words, "no peer") {
		t.Errorf("%+v", why)
	}
	for _, p := range why.Peers {
		if p.Fits || !strings.Contains(strings.Join(p.Reasons, ";"), "where: its name is") {
			t.Errorf("%+v", p)
		}
	}
	must(t, you.JSON(ctx, nil, "job", "cancel", id))
	if code, _ := failure(t, you.JSON(ctx, nil, "job", "wait", id)); code != 130 {
		t.Errorf("wait for a cancelled job: %d", code)
	}
}

// accepted checks that a job is done and that each of its tasks has one result
// that is its worker's.
func accepted(ctx context.Context, t *testing.T, p *localgrid.Peer, id string, tasks int) {
	t.Helper()
	must(t, p.JSON(ctx, nil, "job", "wait", id))
	j := showJob(ctx, t, p, id)
	if j.State != "done" || j.Done != tasks || j.Failed != 0 || len(j.Keepers) < 3 {
		t.Fatalf("%+v", j)
	}
	sum := 0
	for _, p := range j.Peers {
		sum += p.Done
	}
	if sum != tasks {
		t.Errorf("%d tasks were accepted of all peers together, want %d", sum, tasks)
	}
	type place struct {
		Step  string
		Index int
	}
	seen := map[place]bool{}
	must(t, p.Lines(ctx, func(line []byte) error {
		var l struct {
			place
			State, Invalid string
		}
		err := json.Unmarshal(line, &l)
		if seen[l.place] || l.State != "done" || l.Invalid != "" {
			t.Errorf("%s", line)
		}
		seen[l.place] = true
		return err
	}, "job", "logs", id))
	if len(seen) != tasks {
		t.Errorf("%d results, want %d", len(seen), tasks)
	}
	t.Logf("%d tasks, epoch %d", tasks, j.Epoch)
}

// TestJobLogsFollow: logs -f prints results as they come and ends with the job.
func TestJobLogsFollow(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, _ := grow(ctx, t, g, 1)
	id := submit(ctx, t, you, jobDir(t, "steps:\n- module: echo.wasm\n  items: {range: {from: 1, to: 40}}\n", map[string]string{}))
	c := you.Command(ctx, "job", "logs", "-f", id)
	c.Args = removeJSON(c.Args)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err, string(err.(*exec.ExitError).Stderr))
	}
	if lines := strings.Fields(string(out)); len(lines) != 40 {
		t.Errorf("%d lines: %q", len(lines), out)
	}
}

func removeJSON(args []string) (out []string) {
	for _, a := range args {
		if a != "--json" {
			out = append(out, a)
		}
	}
	return out
}
