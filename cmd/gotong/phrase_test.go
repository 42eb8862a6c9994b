package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotong/grid/localgrid"
)

// phraseFile writes a phrase into a file of its own.
func phraseFile(t *testing.T, phrase string) string {
	t.Helper()
	path := filepath.Join(shortTempDir(t), "phrase")
	if err := os.WriteFile(path, []byte(phrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWriteOnlyDevice: a write-only device backs up and shows its status without
// the phrase; what reads snapshots needs the phrase, and the right one.
func TestWriteOnlyDevice(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, err := g.Found(ctx, "you", "--write-only")
	if err != nil {
		t.Fatal(err)
	}
	friend, err := g.Join(ctx, you, "friend")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, you, 2); err != nil {
		t.Fatal(err)
	}
	source := shortTempDir(t)
	writeTree(t, source, 31, 5, 50_000)
	backup(ctx, t, you, source)
	target := filepath.Join(shortTempDir(t), "back")
	phrase := phraseFile(t, you.Phrase)
	for _, args := range [][]string{{"restore", "latest", "--target", target}, {"ls", "latest"}, {"snapshots"}} {
		if code, what := failure(t, you.JSON(ctx, nil, args...)); code != 12 || !strings.Contains(what, "read key") {
			t.Errorf("%s without the phrase: exit code %d: %s", args[0], code, what)
		}
		if code, what := failure(t, you.JSON(ctx, nil, append(args, "--phrase-file", phraseFile(t, friend.Phrase))...)); code != 12 || !strings.Contains(what, "another owner") {
			t.Errorf("%s with the phrase of another: exit code %d: %s", args[0], code, what)
		}
		if err := you.Lines(ctx, func([]byte) error { return nil }, append(args, "--phrase-file", phrase)...); err != nil {
			t.Errorf("with the phrase: %v", err)
		}
	}
	sameTree(t, source, target+source)
	var status struct {
		Backups []struct{ Snapshot, State string }
	}
	if err := you.JSON(ctx, &status, "status"); err != nil || len(status.Backups) != 1 || status.Backups[0].Snapshot == "" {
		t.Errorf("status %+v, %v", status, err)
	}
	if code, _ := failure(t, you.JSON(ctx, nil, "remove", "friend")); code != 13 {
		t.Errorf("a write-only device removes a member: exit code %d", code)
	}
	drillOf := func(args ...string) (d struct {
		OK   bool
		What string
	}) {
		if err := you.JSON(ctx, &d, append([]string{"drill"}, args...)...); err != nil {
			t.Error(err)
		}
		return d
	}
	if d := drillOf(); !d.OK || d.What != "segments" {
		t.Errorf("drill %+v", d)
	}
	if d := drillOf("--phrase-file", phrase); !d.OK || d.What != "files" {
		t.Errorf("drill with the phrase %+v", d)
	}
}

// TestRecoverySheet: the sheet is printed for the right phrase only, and leads an
// empty machine back, by the friends on it.
func TestRecoverySheet(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 3)
	source := shortTempDir(t)
	writeTree(t, source, 32, 5, 50_000)
	backup(ctx, t, you, source)
	out := filepath.Join(shortTempDir(t), "sheet.txt")
	if code, _ := failure(t, you.JSON(ctx, nil, "recovery-sheet")); code != 12 {
		t.Errorf("without a phrase: exit code %d", code)
	}
	if code, _ := failure(t, you.JSON(ctx, nil, "recovery-sheet", "--phrase-file", phraseFile(t, friends[0].Phrase))); code != 12 {
		t.Errorf("with the phrase of another: exit code %d", code)
	}
	printSheet(ctx, t, you, out)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{friends[0].ID + "@" + friends[0].Listen, "24. " + strings.Fields(you.Phrase)[23], "gotong recover", "█"} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the sheet lacks %q", part)
		}
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("sheet %v, %v", info.Mode(), err)
	}
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := friends[0].Kill(); err != nil { // the sheet has others
		t.Fatal(err)
	}
	if err := os.RemoveAll(you.Home); err != nil {
		t.Fatal(err)
	}
	if err := you.JSON(ctx, nil, "recover", "--sheet", out, "--listen", "127.0.0.1:0", "--give", "1GB", "--write-only"); err != nil {
		t.Fatal(err)
	}
	if err := you.Start(ctx); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(shortTempDir(t), "back")
	if err := you.JSON(ctx, nil, "restore", "latest", "--target", target, "--phrase-file", phraseFile(t, you.Phrase)); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, target+source)
}

func printSheet(ctx context.Context, t *testing.T, p *localgrid.Peer, out string) {
	t.Helper()
	cmd := p.Command(ctx, "recovery-sheet", "--phrase-file", phraseFile(t, p.Phrase), "--out", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
