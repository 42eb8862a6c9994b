package main

import (
	"path/filepath"
	"testing"
)

// TestPhraseUndoesRemovals: the founder's own machine removes everybody. recover
// says so and does nothing; told to, it takes that back.
func TestPhraseUndoesRemovals(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 2)
	source := shortTempDir(t)
	writeTree(t, source, 31, 5, 50_000)
	backup(ctx, t, you, source)
	phrase := phraseFile(t, you.Phrase)
	for _, friend := range friends {
		if err := you.JSON(ctx, nil, "remove", "--owner", friend.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := you.Kill(); err != nil {
		t.Fatal(err)
	}
	address := friends[0].ID + "@" + friends[0].Listen
	home := newHome(t, "--phrase-file", phrase, "--name", "device")
	gotong(ctx, t, "", append([]string{"recover", address}, home...)...).want(t, 13,
		"nobody is left to recover from", "removed friend-1", "--undo-removals")
	gotong(ctx, t, "", append([]string{"recover", address, "--undo-removals=nobody"}, home...)...).want(t, 2, `no device of yours called "nobody"`)

	fresh, err := g.Recover(ctx, friends[0], "device", phrase, "--undo-removals")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WaitAlive(ctx, fresh, 3); err != nil {
		t.Fatal(err)
	}
	waitState(ctx, t, fresh, you.ID, "removed")
	target := filepath.Join(shortTempDir(t), "back")
	if err := fresh.Lines(ctx, func([]byte) error { return nil }, "restore", "latest", "--target", target); err != nil {
		t.Fatal(err)
	}
	sameTree(t, source, target+source)
}
