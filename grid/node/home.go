package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"gotong/grid"
	"gotong/grid/disk"
	controlv1 "gotong/proto/control/v1"
)

// home is the directory of one peer:
//
//	config.yaml    what the user set
//	lock           held by the process that uses the home
//	control.sock   where commands talk to the running peer
//	peer/          everything else; it appears in one rename when init or join
//	               is through, so a home is set up or it is not
//	.peer-new/     init, join or recover at work; leftovers are swept by the
//	               next try, but for the node key when it is for the same owner:
//	               what was signed for that key is of use then
//	.peer-new-for  the owner for whom .peer-new/ is
type home struct {
	dir string
}

const (
	stateName    = "peer"
	newStateName = ".peer-new"
	newOwnerName = ".peer-new-for"
	lockName     = "lock"
	socketName   = "control.sock"

	// maxSocketPath is what sockaddr_un takes on every platform, less the
	// closing zero byte; Linux has 4 more.
	maxSocketPath = 103
)

func (h home) state() state    { return state{filepath.Join(h.dir, stateName)} }
func (h home) newState() state { return state{filepath.Join(h.dir, newStateName)} }

// state names the files below peer/.
type state struct {
	dir string
}

func (s state) nodeKey() string { return filepath.Join(s.dir, "node.key") }
func (s state) roster() string  { return filepath.Join(s.dir, "roster") }
func (s state) records() string { return filepath.Join(s.dir, "records") }
func (s state) invites() string { return filepath.Join(s.dir, "invites") }
func (s state) shards() string  { return filepath.Join(s.dir, "shards") }
func (s state) vault() string   { return filepath.Join(s.dir, "vault") }
func (s state) spool() string   { return filepath.Join(s.dir, "spool") }
func (s state) seen() string    { return filepath.Join(s.dir, "seen") }
func (s state) repair() string  { return filepath.Join(s.dir, "repair") }
func (s state) drill() string   { return filepath.Join(s.dir, "drill") }
func (s state) tasks() string   { return filepath.Join(s.dir, "tasks") }
func (s state) work() string    { return filepath.Join(s.dir, "work") }
func (s state) pause() string   { return filepath.Join(s.dir, "pause") }
func (s state) sets() string    { return filepath.Join(s.dir, "sets") }

// isSetUp reports whether init or join completed.
func (h home) isSetUp() bool {
	_, err := os.Stat(h.state().dir)
	return err == nil
}

// socketPath returns where the control socket is. A home whose path is too
// long for a socket address has it in a private directory under the
// temporary one, named after the home.
func (h home) socketPath() string {
	path := filepath.Join(h.dir, socketName)
	if len(path) <= maxSocketPath {
		return path
	}
	name := sha256.Sum256([]byte(h.dir))
	return filepath.Join(os.TempDir(), "gotong-"+hex.EncodeToString(name[:8]), socketName)
}

// lock takes the home for this process. The returned function gives it back.
func (h home) lock() (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(h.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of home: %w", err)
	}
	if err := disk.Lock(f); err != nil {
		f.Close()
		if errors.Is(err, disk.ErrLocked) {
			return nil, &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "another gotong process uses " + h.dir,
				Meaning: "nothing was changed", Next: "stop it, or give another --home"}
		}
		return nil, fmt.Errorf("lock of home: %w", err)
	}
	return func() { f.Close() }, nil
}

// mustBeNew fails when the home is set up.
func (h home) mustBeNew() error {
	if h.isSetUp() {
		return &Failure{Kind: controlv1.Kind_KIND_REFUSED, What: h.dir + " is the home of a peer already",
			Meaning: "nothing was changed", Next: "gotong up, or give another --home"}
	}
	return nil
}

// begin makes a place for the state of a new peer of an owner, empty but for
// the node key of an earlier try for the same owner.
func (h home) begin(owner grid.OwnerID) (state, error) {
	fresh, forWhom := h.newState(), filepath.Join(h.dir, newOwnerName)
	if before, err := disk.ReadFile(forWhom, maxIDText); err != nil || string(before) != owner.String() {
		if err := os.RemoveAll(fresh.dir); err != nil {
			return state{}, err
		}
		if err := disk.WriteFile(forWhom, []byte(owner.String()), 0o600); err != nil {
			return state{}, err
		}
	}
	if err := os.Mkdir(fresh.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return state{}, err
	}
	entries, err := os.ReadDir(fresh.dir)
	if err != nil {
		return state{}, err
	}
	for _, entry := range entries {
		if path := filepath.Join(fresh.dir, entry.Name()); path != fresh.nodeKey() {
			if err := os.RemoveAll(path); err != nil {
				return state{}, err
			}
		}
	}
	return fresh, nil
}

// maxIDText bounds a file that holds an id.
const maxIDText = 128

// finish makes the new state the peer's, durably.
func (h home) finish(fresh state) error {
	if err := disk.SyncDir(fresh.dir); err != nil {
		return err
	}
	if err := os.Rename(fresh.dir, h.state().dir); err != nil {
		return err
	}
	if err := disk.SyncDir(h.dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(h.dir, newOwnerName)) // of no use, and of no harm, from here on
	return nil
}

// openHome checks that the home is set up.
func openHome(dir string) (home, error) {
	h := home{dir}
	if err := CheckHome(dir); err != nil {
		return home{}, err
	}
	if _, err := os.Stat(h.state().dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return home{}, homeFailure("the home of the peer cannot be opened", err)
	}
	if !h.isSetUp() {
		return home{}, &Failure{Kind: controlv1.Kind_KIND_NOT_SET_UP, What: "no peer in " + dir,
			Meaning: "nothing is backed up from here and nothing is kept for others", Next: "gotong init, or gotong join CODE, or gotong recover"}
	}
	return h, nil
}

// CheckIdle fails with a *Failure when no peer is set up in a home, and with one of
// kind KIND_BUSY when a peer or another command uses it.
func CheckIdle(dir string) error {
	h, err := openHome(dir)
	if err != nil {
		return err
	}
	release, err := h.lock()
	if err != nil {
		return err
	}
	release()
	return nil
}

// makeHome makes the home directory when it is missing.
func makeHome(dir string) (home, error) {
	if err := CheckHome(dir); err != nil {
		return home{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return home{}, homeFailure("cannot make the home", err)
	}
	return home{dir}, nil
}

// CheckHome fails with a *Failure for a path that cannot be a home, because it
// or something on the way to it is no directory or may not be entered. A missing
// one is fine.
func CheckHome(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return homeFailure("this cannot be the home of a peer", err)
	}
	return nil
}

func homeFailure(what string, err error) error {
	return &Failure{Kind: controlv1.Kind_KIND_FAILED, What: what, Meaning: "nothing was changed",
		Next: "give another directory with --home DIR", Err: err}
}
