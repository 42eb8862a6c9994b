package snapshot

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"gotong/grid/disk"
)

// What a restore makes under another name first begins with temporaryPrefix, then
// has the id of the run. The run notes the directories in which it does so in a
// file of the target, locked while it lasts. A later restore into the same target
// takes one that is not locked for that of a run that was killed, and removes what
// it left.
const (
	temporaryPrefix = ".gotong-restore-"
	runSuffix       = ".run"
	runIDLength     = 10
	maxRunFile      = 64 << 20 // read of one
	maxDeadRuns     = 256      // cleared by one restore
)

// run is what one restore notes of itself.
type run struct {
	id  string
	top *os.Root

	mu   sync.Mutex
	file *os.File // nil: nothing is noted, because the target does not allow it
}

func newRun(top *os.Root) *run { return &run{id: rand.Text()[:runIDLength], top: top} }

// begin begins to take notes in the target.
func (n *run) begin() {
	f, err := n.top.OpenFile(n.name(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return // what is to be written there will tell
	}
	if disk.Lock(f) != nil {
		_ = n.top.Remove(n.name())
		_ = f.Close() // empty
		return
	}
	n.file = f
}

func (n *run) name() string { return temporaryPrefix + n.id + runSuffix }

// temporary returns where an entry is made before it gets its name.
func (n *run) temporary() string { return temporaryPrefix + n.id + "-" + rand.Text()[:16] }

// note says that something is made in a directory. Nothing is synced: a kill does
// not take the note away, and a power cut costs only that something is left over.
func (n *run) note(dir string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil {
		_, _ = n.file.WriteString(dir + "\x00")
	}
}

// end removes the notes. The target keeps the times that it was given.
func (n *run) end() {
	if n.file == nil {
		return
	}
	info, err := n.top.Stat(".")
	_ = n.top.Remove(n.name()) // the next restore sees that it is not locked
	_ = n.file.Close()
	if err == nil {
		_ = n.top.Chtimes(".", time.Time{}, info.ModTime())
	}
}

// clearRuns removes what restores into the target left that were killed, and
// returns how many entries these were.
func clearRuns(top *os.Root) (removed int, err error) {
	dir, err := top.Open(".")
	if err != nil {
		return 0, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return 0, err
	}
	var errs []error
	runs := 0
	for _, name := range names {
		rest, ours := strings.CutPrefix(name, temporaryPrefix)
		id, notes := strings.CutSuffix(rest, runSuffix)
		if !ours || !notes || len(id) != runIDLength || runs == maxDeadRuns {
			continue
		}
		runs++
		n, err := clearRun(top, name, temporaryPrefix+id+"-")
		removed += n
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// clearRun removes what one run left, and its notes once all of it is gone.
func clearRun(top *os.Root, notes, prefix string) (removed int, err error) {
	if info, err := top.Lstat(notes); err != nil || !info.Mode().IsRegular() {
		return 0, nil //nolint:nilerr // it has just ended, or is none
	}
	f, err := top.OpenFile(notes, os.O_RDWR, 0)
	if err != nil {
		return 0, nil //nolint:nilerr // somebody else's
	}
	defer func() { _ = f.Close() }() // only read
	if disk.Lock(f) != nil {
		return 0, nil // it runs, or nobody can tell
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRunFile))
	if err != nil {
		return 0, err
	}
	var errs []error
	for dir := range bytes.SplitSeq(text, []byte{0}) {
		n, err := clearDir(top, string(dir), prefix)
		removed += n
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, err
	}
	return removed, top.Remove(notes)
}

// clearDir removes the temporary entries of one run from a directory. One that is
// not there any more has none.
func clearDir(top *os.Root, name, prefix string) (removed int, err error) {
	dir, err := top.Open(path.Join(".", name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for what a restore left: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return 0, fmt.Errorf("look for what a restore left: %w", err)
	}
	for _, entry := range names {
		if !strings.HasPrefix(entry, prefix) {
			continue
		}
		if err := top.Remove(path.Join(name, entry)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed++
	}
	return removed, nil
}
