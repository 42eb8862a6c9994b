package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"gotong/grid"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/segments"
	"gotong/storage/vault"
)

// TestTooFewNamesFriendsByReason: who did not help is named once, by name, under
// the reason, and no address or call is in the text.
func TestTooFewNamesFriendsByReason(t *testing.T) {
	names := map[grid.PeerID]string{{1}: "Ann", {2}: "Bob", {3}: "Cid", {4}: "Dee"}
	nameOf := func(id grid.PeerID) string { return names[id] }
	cause := func(id byte, err error) segments.PeerError {
		return segments.PeerError{Peer: grid.PeerID{id}, Err: &storage.Error{Op: "put", Peer: grid.PeerID{id}, Err: err}}
	}
	away := fmt.Errorf("dial tcp 127.0.0.1:1: %w", grid.ErrUnreachable)
	for _, test := range []struct {
		need, of, answered int
		causes             []segments.PeerError
		want               string
		kind               controlv1.Kind
	}{
		{4, 6, 3, []segments.PeerError{cause(2, away), cause(1, away), cause(3, storage.ErrCorrupt), cause(3, away)},
			"needs 4 of 6, 3 answered; bad data from: Cid; missing: Ann, Bob", controlv1.Kind_KIND_TOO_FEW},
		{1, 2, 0, []segments.PeerError{cause(1, storage.ErrQuota), cause(2, fmt.Errorf("failed a moment ago: %w", storage.ErrFull))},
			"needs 1 of 2, 0 answered; no room: Ann, Bob", controlv1.Kind_KIND_REFUSED},
		{2, 3, 1, []segments.PeerError{cause(1, storage.ErrQuota), cause(4, storage.ErrDisk), cause(2, storage.ErrDenied)},
			"needs 2 of 3, 1 answered; disk failed: Dee; no room: Ann; refused: Bob", controlv1.Kind_KIND_TOO_FEW},
		{2, 3, 1, []segments.PeerError{cause(1, storage.ErrQuota), cause(2, storage.ErrDenied)},
			"needs 2 of 3, 1 answered; no room: Ann; refused: Bob", controlv1.Kind_KIND_REFUSED},
		{2, 3, 1, []segments.PeerError{cause(3, fmt.Errorf("%w: %w", storage.ErrTooFewShards, storage.ErrCorrupt)), cause(2, storage.ErrNotFound)},
			"needs 2 of 3, 1 answered; bad data from: Cid; without it: Bob", controlv1.Kind_KIND_CORRUPT},
		{2, 3, 1, []segments.PeerError{cause(3, fmt.Errorf("%w: %w", storage.ErrTooFewShards, storage.ErrCorrupt)), cause(2, away)},
			"needs 2 of 3, 1 answered; bad data from: Cid; missing: Bob", controlv1.Kind_KIND_TOO_FEW},
		{0, 0, 0, []segments.PeerError{cause(1, away), cause(2, storage.ErrNotFound)},
			"no friend who keeps segment 000000000000 answered; missing: Ann; without it: Bob", controlv1.Kind_KIND_TOO_FEW},
	} {
		few := &segments.TooFewError{Need: test.need, Of: test.of, Answered: test.answered, Causes: test.causes}
		seen := map[grid.PeerID]bool{}
		for _, c := range test.causes {
			if !seen[c.Peer] {
				few.Missing = append(few.Missing, c.Peer)
			}
			seen[c.Peer] = true
		}
		f := tooFew(few, nameOf)
		if got := strings.TrimPrefix(f.Error(), "segment 000000000000 "); got != test.want || f.Kind != test.kind {
			t.Errorf("got  %v %q\nwant %v %q", f.Kind, got, test.kind, test.want)
		}
		if f.Meaning == "" || f.Next == "" {
			t.Errorf("%q: meaning %q, next %q", f.What, f.Meaning, f.Next)
		}
	}
}

// TestOneBackupAtATime: a second backup is refused while one runs, and waits
// for one that was interrupted.
func TestOneBackupAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backups
		ctx, interrupt := context.WithCancel(t.Context())
		end, err := b.begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.begin(t.Context()); !errors.Is(err, vault.ErrBusy) {
			t.Errorf("beside a running one: %v", err)
		}
		interrupt()
		began := make(chan error, 1)
		go func() {
			end, err := b.begin(t.Context())
			if err == nil {
				end()
			}
			began <- err
		}()
		synctest.Wait()
		select {
		case err := <-began:
			t.Errorf("did not wait: %v", err)
		default:
		}
		end()
		if err := <-began; err != nil {
			t.Errorf("after an interrupted one: %v", err)
		}
	})
}

// TestPlainReason: the call and its file, which may be a temporary one, are not
// in what a user reads beside the name of the entry.
func TestPlainReason(t *testing.T) {
	path := &fs.PathError{Op: "openat", Path: ".gotong-restore-X", Err: syscall.EACCES}
	link := &os.LinkError{Op: "symlinkat", Old: "a", New: ".gotong-restore-Y", Err: syscall.EACCES}
	for _, test := range []struct {
		err  error
		want string
	}{
		{path, "permission denied"},
		{link, "permission denied"},
		{fmt.Errorf("hard link to a: %w", path), "hard link to a: permission denied"},
		{errors.New("plain"), "plain"},
	} {
		if got := plainReason(test.err); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
