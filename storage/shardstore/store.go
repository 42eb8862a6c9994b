package shardstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"gotong/grid/disk"
	"gotong/storage"
)

// Names inside a store's directory.
const (
	lockName     = "lock"
	formatName   = "format"
	shardsDir    = "shards"
	trashDir     = "trash"
	surplusDir   = "surplus"
	badDir       = "bad"
	headsDir     = "heads"
	deletionsDir = "deleted"
	tempSuffix   = ".tmp"

	formatText = "gotong shard store 1\n"
)

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("shard store is closed")

// Store is an open store. See the package comment.
type Store struct {
	cfg      Config
	fs       FS
	log      *slog.Logger
	lock     io.Closer
	clock    *runClock
	wall     wallClock
	cat      *catalogue
	heads    *headStore
	trees    *treeCache
	problems problemList

	deletions *deletionStore
	removed   removedOwners
	givenUp   givenUpOwners

	closed  atomic.Bool
	suspect atomic.Bool // a sync failed
	temp    atomic.Uint64

	dirs    sync.Mutex      // guards made and settled, and making directories
	made    map[string]bool // directories whose own name is durable
	settled map[string]bool // directories in which all names are durable
	hintMu  sync.Mutex      // serialises writing holder pages
}

// Open opens the store in dir, making it if there is none, and reads the first
// page of every shard. disk.ErrLocked: another process has it open. The caller
// closes the store.
func Open(dir string, cfg Config) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.filled()
	files := cfg.FS
	if files == nil {
		if files, err = openDisk(dir); err != nil {
			return nil, fmt.Errorf("open shard store: %w", err)
		}
	}
	lock, err := files.Lock(lockName)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open shard store: %w", err), files.Close())
	}
	s := &Store{cfg: cfg, fs: files, log: cfg.Logger, lock: lock, cat: newCatalogue(cfg), trees: newTreeCache(),
		made: map[string]bool{}, settled: map[string]bool{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open shard store: %w", err), lock.Close(), files.Close())
	}
	return s, nil
}

// load brings the directory in order and builds what is kept in memory.
func (s *Store) load() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	clock, err := openClock(s)
	if err != nil {
		return err
	}
	s.clock = clock
	if err := s.scanShards(); err != nil {
		return err
	}
	for _, away := range []string{trashDir, surplusDir} {
		if err := s.scanAway(away); err != nil {
			return err
		}
	}
	if err := s.scanBad(); err != nil {
		return err
	}
	s.heads = newHeadStore(s)
	if err := s.heads.scan(); err != nil {
		return err
	}
	s.deletions = newDeletionStore(s)
	if err := s.deletions.scan(); err != nil {
		return err
	}
	s.clock.settle()
	s.trashDeleted()
	return errors.Join(s.loadRemoved(), s.loadGivenUp())
}

// checkFormat makes a new store, or refuses one of another version. The
// directories are durable before the file that says that the store is there.
func (s *Store) checkFormat() error {
	text, err := s.readFile(formatName, len(formatText)+1)
	if err == nil && string(text) != formatText {
		return fmt.Errorf("%w: format %q is not %q; a newer version of the program made this store", storage.ErrCorrupt, text, formatText)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeLayout(); err != nil || len(text) > 0 {
		return err
	}
	return s.writeFile(formatName, []byte(formatText))
}

// makeLayout makes the directories that are missing, makes those inside them
// durable that a process which was killed left behind, and removes what it did
// not finish in the root directory.
func (s *Store) makeLayout() error {
	names, err := s.fs.ReadDir(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), tempSuffix) {
			continue
		}
		if err := s.fs.Remove(name.Name()); err != nil {
			return err
		}
	}
	for _, dir := range []string{shardsDir, trashDir, surplusDir, badDir, headsDir, deletionsDir} {
		if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{".", shardsDir, trashDir, surplusDir, headsDir, deletionsDir} {
		if err := s.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads a small file of at most limit bytes.
func (s *Store) readFile(name string, limit int) ([]byte, error) {
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, int64(limit)))
}

// writeFile replaces a small file of the root directory, durably.
func (s *Store) writeFile(name string, data []byte) error {
	temp := name + tempSuffix
	if err := s.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fs.Create(temp)
	if err != nil {
		return err
	}
	if err := errors.Join(writeAndSync(f, data), f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(temp, name); err != nil {
		return err
	}
	return s.fs.SyncDir(".")
}

func writeAndSync(f File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// makeDir makes parent/name durable, once.
func (s *Store) makeDir(parent, name string) error {
	path := parent + "/" + name
	s.dirs.Lock()
	defer s.dirs.Unlock()
	if s.made[path] {
		return nil
	}
	if err := s.fs.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return ioFailed(err)
	}
	if err := s.fs.SyncDir(parent); err != nil {
		return s.syncFailed(err)
	}
	s.made[path] = true
	return nil
}

// settle makes the names durable that were found in a directory at Open. A
// process that was killed between rename and sync leaves a name that a power
// cut may still take away, and saying that the shard is stored would be an
// acknowledgement.
func (s *Store) settle(dir string) error {
	s.dirs.Lock()
	defer s.dirs.Unlock()
	if s.settled[dir] {
		return nil
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return s.syncFailed(err)
	}
	s.settled[dir] = true
	return nil
}

// check returns why nothing may be done, or nil.
func (s *Store) check() error {
	if s.closed.Load() {
		return ErrClosed
	}
	return nil
}

// checkWrite returns why nothing may be written, or nil.
func (s *Store) checkWrite() error {
	if err := s.check(); err != nil {
		return err
	}
	if s.suspect.Load() {
		return fmt.Errorf("an earlier sync failed, so this disk takes nothing until restart: %w", storage.ErrDisk)
	}
	return nil
}

// syncFailed marks the disk as suspect and returns the error to pass on.
func (s *Store) syncFailed(err error) error {
	if disk.IsFull(err) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	if !s.suspect.Swap(true) {
		s.log.Error("disk failed to make data durable", "err", err)
		s.problems.add(Problem{What: "disk failed to make data durable", Why: err.Error()})
	}
	return fmt.Errorf("%w: %w", storage.ErrDisk, err)
}

// ioFailed classifies the error of any other write.
func ioFailed(err error) error {
	if disk.IsFull(err) {
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrDisk, err)
}

// Close ends the store. What is being written or read then fails. Closing twice
// is allowed.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if !s.suspect.Load() {
		if err := s.clock.save(); err != nil {
			s.log.Warn("running clock cannot be saved", "err", err) // floors only get longer
		}
	}
	return errors.Join(s.lock.Close(), s.fs.Close())
}

// fanOut returns the name of the directory of a segment inside shards/.
func fanOut(id storage.SegmentID) string { return id.String()[:2] }

// shardDir returns the directory of the shards of a segment.
func shardDir(id storage.SegmentID) string { return shardsDir + "/" + fanOut(id) }

// shardPath returns the file of a shard.
func shardPath(id storage.ShardID) string { return shardDir(id.Segment) + "/" + id.String() }

func badPath(id storage.ShardID) string { return badDir + "/" + id.String() }
