package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotong/grid/localgrid"
)

// mounting is a gotong mount that runs.
type mounting struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	dir string
}

func mountAt(ctx context.Context, t *testing.T, p *localgrid.Peer, args ...string) *mounting {
	t.Helper()
	m := &mounting{t: t, dir: shortTempDir(t)}
	m.cmd = p.Command(ctx, append([]string{"mount", m.dir, "--json"}, args...)...)
	m.cmd.Stderr = os.Stderr
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.out = bufio.NewReader(stdout)
	if line, err := m.out.ReadString('\n'); err != nil {
		_, _ = io.Copy(os.Stderr, m.out)
		t.Fatalf("it said %q: %v", line, m.cmd.Wait())
	}
	return m
}

// ended waits for the end, with that exit code, and returns what was read and
// fetched.
func (m *mounting) ended(code int) (read, fetched uint64, why string) {
	m.t.Helper()
	var sum struct {
		Read    uint64 `json:"bytes_read"`
		Fetched uint64 `json:"bytes_fetched"`
		Why     string
	}
	line, _ := m.out.ReadBytes('\n')
	if err := m.cmd.Wait(); m.cmd.ProcessState == nil || m.cmd.ProcessState.ExitCode() != code {
		m.t.Fatalf("exit code is not %d: %v", code, err)
	}
	if err := json.Unmarshal(line, &sum); err != nil {
		m.t.Fatalf("%q: %v", line, err)
	}
	if entries, err := os.ReadDir(m.dir); err != nil || len(entries) > 0 {
		m.t.Errorf("after the unmount: %v, %v", entries, err)
	}
	return sum.Read, sum.Fetched, sum.Why
}

func (m *mounting) interrupt() (read, fetched uint64) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(os.Interrupt); err != nil {
		m.t.Fatal(err)
	}
	read, fetched, _ = m.ended(0)
	return read, fetched
}

// TestMount: a mount shows what was backed up, reads little for a little, goes
// when it is interrupted or the peer stops, and refuses a directory in use and one
// where a mount was killed.
func TestMount(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil && os.Getenv("REQUIRE_FUSE") == "" {
		t.Skip("no FUSE here: ", err)
	}
	ctx := testContext(t)
	g := newGrid(t, "--redundancy", "4+2")
	you, friends := grow(ctx, t, g, 6)
	source := shortTempDir(t)
	writeTree(t, source, 8, 30, 300_000)
	big := make([]byte, 24<<20)
	for i := range big {
		big[i] = byte(i * i >> 7 * i)
	}
	if err := os.WriteFile(filepath.Join(source, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := backup(ctx, t, you, source); !s.Complete {
		t.Fatalf("summary %+v", s)
	}
	for _, p := range friends[:2] {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	all := mountAt(ctx, t, you)
	sameTree(t, source, filepath.Join(all.dir, "latest", source))
	all.interrupt()

	single := mountAt(ctx, t, you, "--snapshot", "latest")
	f, err := os.Open(filepath.Join(single.dir, source, "big"))
	if err != nil {
		t.Fatal(err)
	}
	small := make([]byte, 4096)
	if _, err := f.ReadAt(small, 10<<20); err != nil || string(small) != string(big[10<<20:10<<20+4096]) {
		t.Error(err)
	}
	_ = f.Close()
	// What a killed holder has costs the whole segment, of the content and of the
	// listings.
	if read, fetched := single.interrupt(); read < 4096 || fetched == 0 || fetched > 2*17<<20 {
		t.Errorf("%d bytes were fetched to read %d", fetched, read)
	}
	code, what := failure(t, you.JSON(ctx, nil, "mount", source))
	if code != 2 {
		t.Errorf("exit code %d: %s", code, what)
	}

	killed := mountAt(ctx, t, you)
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.cmd.Wait() // it was killed
	gotong(ctx, t, "", "--home", you.Home, "mount", killed.dir).want(t, 1, "an old mount", "fusermount3 -u "+killed.dir)
	if err := exec.Command("fusermount3", "-u", killed.dir).Run(); err != nil {
		t.Errorf("the command that it names: %v", err)
	}

	last := mountAt(ctx, t, you)
	if err := you.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, _, why := last.ended(10); why != "the peer stopped" {
		t.Errorf("it ended because %s", why)
	}
}
