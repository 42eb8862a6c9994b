package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// Bounds of a backup.
const (
	minReaders    = 2
	maxReaders    = 4
	aheadEntries  = 1024 // entries that the walk is ahead of the listings
	aheadFiles    = 64   // files waiting to be read
	progressEvery = 200 * time.Millisecond
)

// ErrNothing says that none of the paths could be backed up.
var ErrNothing = errors.New("nothing to back up")

// BackupOptions says what to back up.
type BackupOptions struct {
	// Paths are absolute. A path that is a symbolic link means what it leads to.
	Paths []string
	// Exclude are absolute paths that are left out with all below, such as the
	// peer's own home.
	Exclude []string
	Host    string
	Tags    []string
	// Progress, when set, is called a few times a second, and once in the end.
	Progress func(Progress)
	// Skipped, when set, is called for each entry that could not be read. The
	// backup goes on without it. Calls do not overlap.
	Skipped func(path string, err error)
	Logger  *slog.Logger // nil discards
}

// Progress says how far a backup or a restore is.
type Progress struct {
	Files, Bytes uint64 // done
	NewBytes     uint64 // backup: of them, not in the vault before
	StoredBytes  uint64 // backup: of all shards sent
	TotalFiles   uint64 // restore only; 0 when unknown
	TotalBytes   uint64
}

// BackupSummary says what a backup made.
type BackupSummary struct {
	Snapshot      vault.Snapshot
	Files         uint64 // regular files
	Directories   uint64
	Bytes         uint64 // of the files
	NewBytes      uint64 // not in the vault before
	StoredBytes   uint64 // of all shards sent
	Segments      uint64 // sent
	Skipped       uint64 // entries that could not be read
	Committed     bool   // see vault.Result
	Complete      bool
	SurvivesSites int
	Duration      time.Duration
}

// Backup stores the paths as one snapshot. Entries that cannot be read are
// skipped and counted. After an error there is no snapshot; what was sent is
// used by the next backup.
func Backup(ctx context.Context, v *vault.Vault, options BackupOptions) (BackupSummary, error) {
	began := time.Now()
	roots, err := newRootTree(options.Paths)
	if err != nil {
		return BackupSummary{}, err
	}
	session, err := v.Begin(ctx)
	if err != nil {
		return BackupSummary{}, fmt.Errorf("begin backup: %w", err)
	}
	defer session.Abort()
	ctx, cancel := context.WithCancelCause(session.Context())
	defer cancel(nil)
	b := &backup{v: v, s: session, ctx: ctx, cancel: cancel, options: options, log: options.Logger,
		items: make(chan *item, aheadEntries), jobs: make(chan *item, aheadFiles), devices: map[uint64]uint32{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	stop := b.report()
	root, err := b.run(roots)
	if err != nil {
		stop()
		return BackupSummary{}, err
	}
	result, err := session.Commit(vault.Snapshot{
		Created: began, Host: options.Host, Paths: options.Paths, Root: root, Tags: options.Tags,
		Files: b.files.Load(), Directories: b.dirs.Load(), Bytes: b.bytes.Load(), Skipped: b.skipped.Load(),
	})
	stop()
	if err != nil {
		return BackupSummary{}, fmt.Errorf("finish backup: %w", err)
	}
	return BackupSummary{
		Snapshot: result.Snapshot, Files: b.files.Load(), Directories: b.dirs.Load(), Bytes: b.bytes.Load(),
		NewBytes: result.Stats.NewBytes, StoredBytes: result.Stats.StoredBytes, Segments: result.Stats.Segments,
		Skipped: b.skipped.Load(), Committed: result.Committed, Complete: result.Complete,
		SurvivesSites: result.SurvivesSites, Duration: time.Since(began),
	}, nil
}

// backup is one run. Three kinds of goroutines share it: one walks and emits
// items in order, several read files, one takes the items in order, waits for
// each file and writes the listings. All their queues are bounded, and nobody
// waits for somebody behind.
type backup struct {
	v       *vault.Vault
	s       *vault.Session
	ctx     context.Context
	cancel  context.CancelCauseFunc
	options BackupOptions
	log     *slog.Logger
	items   chan *item
	jobs    chan *item
	devices map[uint64]uint32 // of hard links; the walk's
	states  []*state          // of the paths; the walk's while it runs

	files, dirs, bytes, skipped atomic.Uint64
	skipping                    sync.Mutex
}

// item is one step of the walk.
type item struct {
	step   step
	dir    *openDir // of the entry
	name   string
	as     string // in the snapshot
	meta   meta
	key    []byte         // in the state
	state  *state         // nil when the entry is not remembered
	encode *vaultv1.Node  // the node to encode
	node   []byte         // encoded; nil when the entry is left out
	blobs  []vault.BlobID // of the content
	known  bool           // blobs are all blobs, so the file may be remembered
	ready  chan struct{}  // closed when the rest is there; nil when it is
}

type step int

const (
	stepEntry  step = iota
	stepEnter       // begin the listing of the directory encode
	stepLeave       // end it
	stepFinish      // a backed up path is done: state may be kept
)

// run walks the roots and returns the listing of "/".
func (b *backup) run(roots *rootTree) (vault.Ref, error) {
	readers := min(max(runtime.GOMAXPROCS(0), minReaders), maxReaders)
	var wg sync.WaitGroup
	defer b.closeStates()
	defer wg.Wait()
	for range readers {
		w, err := b.s.NewWriter()
		if err != nil {
			close(b.jobs)
			return vault.Ref{}, err
		}
		wg.Go(func() { b.read(w) })
	}
	wg.Go(func() {
		defer close(b.items)
		defer close(b.jobs)
		b.walkRoots(roots)
	})
	root, err := b.assemble()
	if err != nil {
		b.cancel(err)
	}
	for range b.items { // after an error the walk may still be ahead
	}
	if err == nil && b.files.Load()+b.dirs.Load() == 0 && b.skipped.Load() > 0 {
		err = ErrNothing
	}
	return root, err
}

// closeStates leaves the states of paths that were not walked to their end for
// the next backup.
func (b *backup) closeStates() {
	for _, st := range b.states {
		if err := st.finish(false); err != nil {
			b.log.Warn("the next backup will read files again", "err", err)
		}
	}
}

// skip reports an entry that could not be read.
func (b *backup) skip(path string, err error) {
	b.skipped.Add(1)
	b.log.Debug("not backed up", "path", path, "err", err)
	if b.options.Skipped == nil {
		return
	}
	b.skipping.Lock()
	defer b.skipping.Unlock()
	b.options.Skipped(path, err)
}

// report calls Progress regularly until stop is called.
func (b *backup) report() (stop func()) {
	return reportEvery(b.options.Progress, func() Progress {
		stats := b.s.Stats()
		return Progress{Files: b.files.Load(), Bytes: b.bytes.Load(), NewBytes: stats.NewBytes, StoredBytes: stats.StoredBytes}
	})
}

// reportEvery calls report with what now returns until stop is called, which
// calls it once more.
func reportEvery(report func(Progress), now func() Progress) (stop func()) {
	if report == nil {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				report(now())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		report(now())
	}
}

// openDir is a source directory with those who still need it. The walk holds
// one reference, each file that waits to be read another.
type openDir struct {
	source sourceDir
	path   string
	refs   atomic.Int32
}

func newOpenDir(source sourceDir, path string) *openDir {
	d := &openDir{source: source, path: path}
	d.refs.Store(1)
	return d
}

func (d *openDir) release() {
	if d.refs.Add(-1) == 0 {
		_ = d.source.close() // only read
	}
}

func (d *openDir) join(name string) string {
	if d.path == string(filepath.Separator) {
		return d.path + name
	}
	return d.path + string(filepath.Separator) + name
}

// absent reports whether an entry went away between being listed and being read.
func absent(err error) bool { return errors.Is(err, os.ErrNotExist) }
