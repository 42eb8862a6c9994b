package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// jobBytes is what a peer keeps for jobs of others.
func jobBytes(ctx context.Context, p *localgrid.Peer) (n uint64, err error) {
	var s struct {
		Giving struct {
			HeldFor []struct {
				JobBytes uint64 `json:"job_bytes"`
			} `json:"held_for"`
		}
	}
	err = p.JSON(ctx, &s, "status")
	for _, h := range s.Giving.HeldFor {
		n += h.JobBytes
	}
	return n, err
}

// TestLargeInputComesFromHolders: what many workers need is stored on the grid
// once, workers fetch it from there, and two of the holders may die meanwhile.
func TestLargeInputComesFromHolders(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 6)
	const items, words = 16, 400_000
	text := []byte(strings.Repeat("of what was said nothing remained but this long line of words that nobody counts by hand\n", words/15))
	input := filepath.Join(shortTempDir(t), "words.txt")
	if err := os.WriteFile(input, bytes.Repeat(text, 8), 0o600); err != nil { // 19 MiB, two pieces
		t.Fatal(err)
	}
	killed := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if n, err := jobBytes(ctx, friends[0]); err != nil || n > 0 {
				killed <- killBoth(friends, err)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	args := []string{"--input", input, guest(t, guests.Wordcount), "words.txt", "{}", strconv.Itoa(items), ":::"}
	for i := range items {
		args = append(args, strconv.Itoa(i))
	}
	lines, err := run(ctx, t, you, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	counted, done := 0, 0
	for _, l := range lines {
		if l.Type != "task" {
			continue
		}
		done++
		for line := range strings.Lines(l.Stdout) {
			var n int
			var word string
			if _, err := fmt.Sscan(line, &n, &word); err != nil || l.State != "done" {
				t.Fatalf("task %d on %s: %s, %s: %q", l.Index, l.Peer, l.State, l.Why, line)
			}
			counted += n
		}
	}
	long := 0
	for _, w := range strings.Fields(string(text)) {
		if len(w) >= 3 {
			long++
		}
	}
	if want := long * 8; counted != want || done != items {
		t.Errorf("%d tasks counted %d words, want %d", done, counted, want)
	}
	if n, err := jobBytes(ctx, friends[5]); err != nil || n == 0 {
		t.Errorf("the last friend keeps %d bytes for jobs, %v", n, err)
	}
}

func killBoth(friends []*localgrid.Peer, err error) error {
	if err != nil {
		return err
	}
	if err := friends[0].Kill(); err != nil {
		return err
	}
	return friends[1].Kill()
}
