package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
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
//
// Patterns are lines of gitignore, exactly as git reads them, as if they stood
// in a file in each of the paths: "*.o", "/cache/", "!keep". A line that begins
// with a backed up path means what is there. Exclude wins over ignore files,
// those of inner directories win over those of outer ones, and all of them over
// ExcludeFrom. The paths themselves are always backed up.
type BackupOptions struct {
	// Paths are absolute. A path that is a symbolic link means what it leads to.
	Paths []string
	// Never are absolute paths that are left out with all below, under any name
	// and whatever the patterns say, such as the peer's own home.
	Never []string
	// Exclude are patterns.
	Exclude []string
	// ExcludeFrom are files of patterns.
	ExcludeFrom []string
	// IgnoreFiles are the names of files of patterns inside the trees, which hold
	// from their directory down; nil is DefaultIgnoreFile alone, empty is none.
	IgnoreFiles []string
	// ExcludeCaches leaves out what is in directories with a CACHEDIR.TAG that has
	// the signature, but for the tag.
	ExcludeCaches bool
	// ExcludeIfPresent leaves out what is in directories that hold a file of one
	// of these names, but for that file.
	ExcludeIfPresent []string
	// OneFileSystem stays on the file system of each path; what is mounted below
	// becomes an empty directory.
	OneFileSystem bool
	// Stdin, when set, is backed up as the one file StdinName instead of Paths,
	// until io.EOF; any other error ends the backup without a snapshot: ErrStdin.
	// Its Read must return once ctx has ended.
	Stdin     io.Reader
	StdinName string // a path in the snapshot; empty is "stdin"
	// DryRun reads everything and says what a backup would add; it stores nothing.
	DryRun bool
	Host   string
	Set    string // name of the backup set; may be empty
	Tags   []string
	// Progress, when set, is called a few times a second, and once in the end.
	Progress func(Progress)
	// Skipped, when set, is called for each entry that could not be read. The
	// backup goes on without it. Calls do not overlap, those of Warned included.
	Skipped func(path string, err error)
	// Warned, when set, is called for each entry that is in the snapshot, but not
	// as it should be: ErrChanged.
	Warned func(path string, err error)
	Logger *slog.Logger // nil discards
}

// ErrChanged says that a file changed each time it was read: its content in the
// snapshot may be of no single moment.
var ErrChanged = errors.New("changed while it was read")

// Progress says how far a backup or a restore is.
type Progress struct {
	Files, Bytes   uint64 // done
	NewBytes       uint64 // backup: of them, not in the vault before
	DuplicateBytes uint64 // backup: of them, in the vault before; restore: in the target before
	StoredBytes    uint64 // backup: of all shards sent
	TotalFiles     uint64 // 0 when not known (yet)
	TotalBytes     uint64
}

// BackupSummary says what a backup made, or after a dry run would have made.
type BackupSummary struct {
	Snapshot       vault.Snapshot // without an id after a dry run
	Files          uint64         // regular files
	NewFiles       uint64         // of them, not there at the last backup of this path
	ChangedFiles   uint64         // of them, there and different
	Directories    uint64
	Bytes          uint64 // of the files
	NewBytes       uint64 // not in the vault before
	DuplicateBytes uint64 // of the files, in the vault before
	StoredBytes    uint64 // of all shards sent
	Segments       uint64 // sent
	Skipped        uint64 // entries that could not be read
	Excluded       uint64 // entries that were left out as asked; what is below them does not count
	Warned         uint64 // files that changed while they were read
	Committed      bool   // see vault.Result
	Complete       bool
	SurvivesSites  int
	Duration       time.Duration
}

// Backup stores the paths as one snapshot. Entries that cannot be read are
// skipped and counted. After an error there is no snapshot; what was sent is
// used by the next backup. Errors: ErrNothing, ErrPattern, those of the vault.
func Backup(ctx context.Context, v *vault.Vault, options BackupOptions) (BackupSummary, error) {
	began := time.Now()
	b, err := newBackup(v, options)
	if err != nil {
		return BackupSummary{}, err
	}
	begin := v.Begin
	if options.DryRun {
		begin = v.BeginDry
	}
	if b.s, err = begin(ctx); err != nil {
		return BackupSummary{}, fmt.Errorf("begin backup: %w", err)
	}
	defer b.s.Abort()
	b.ctx, b.cancel = context.WithCancelCause(b.s.Context())
	defer b.cancel(nil)
	stop := b.report()
	root, err := b.run()
	if err != nil {
		stop()
		return BackupSummary{}, err
	}
	result := vault.Result{Stats: b.s.Stats(), Snapshot: vault.Snapshot{
		Created: began, Host: options.Host, Paths: b.paths, Root: root, Tags: options.Tags, Set: options.Set,
		Files: b.files.Load(), Directories: b.dirs.Load(), Bytes: b.bytes.Load(), Skipped: b.skipped.Load(),
	}}
	if !options.DryRun {
		result, err = b.s.Commit(result.Snapshot)
	}
	stop()
	if err != nil {
		return BackupSummary{}, fmt.Errorf("finish backup: %w", err)
	}
	return BackupSummary{
		Snapshot: result.Snapshot, Files: b.files.Load(), NewFiles: b.fresh.Load(), ChangedFiles: b.changed.Load(),
		Directories: b.dirs.Load(), Bytes: b.bytes.Load(),
		NewBytes: result.Stats.NewBytes, DuplicateBytes: b.reused.Load() + result.Stats.DuplicateBytes,
		StoredBytes: result.Stats.StoredBytes, Segments: result.Stats.Segments,
		Skipped: b.skipped.Load(), Excluded: b.excluded.Load(), Warned: b.warned.Load(),
		Committed: result.Committed, Complete: result.Complete,
		SurvivesSites: result.SurvivesSites, Duration: time.Since(began),
	}, nil
}

// newBackup checks the options.
func newBackup(v *vault.Vault, options BackupOptions) (*backup, error) {
	b := &backup{v: v, options: options, log: options.Logger,
		items: make(chan *item, aheadEntries), jobs: make(chan *item, aheadFiles), devices: map[uint64]uint32{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if options.IgnoreFiles == nil {
		b.options.IgnoreFiles = []string{DefaultIgnoreFile}
	}
	for _, name := range slices.Concat(b.options.IgnoreFiles, options.ExcludeIfPresent) {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPattern, err)
		}
	}
	for _, path := range options.ExcludeFrom {
		lines, err := ReadPatterns(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPattern, err)
		}
		b.lines = append(b.lines, lines...)
	}
	if _, err := newFilter(options.Exclude, b.lines, ""); err != nil {
		return nil, err
	}
	if options.Stdin != nil {
		name := path.Clean("/" + cmp.Or(options.StdinName, "stdin"))
		if len(options.Paths) > 0 || name == "/" {
			return nil, fmt.Errorf("%w: standard input is a file of its own, with a name and without other paths", ErrNothing)
		}
		b.roots, b.paths = &rootTree{}, []string{name}
		b.roots.addSlashed(name)
		return b, nil
	}
	var err error
	b.roots, err = newRootTree(options.Paths)
	if err != nil {
		return nil, err
	}
	b.neverIDs = neverIDs(options.Never)
	b.paths = b.roots.summary(options.Paths)
	return b, nil
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
	roots   *rootTree
	paths   []string // as the snapshot has them
	lines   []string // of the files of patterns
	items   chan *item
	jobs    chan *item
	devices map[uint64]uint32 // of hard links; the walk's
	states  []*state          // of the paths; the walk's while it runs
	shared  *state            // of all paths, when there are many

	neverIDs map[fileID]bool
	counting bool // only counts what there is

	files, fresh, changed, dirs, bytes atomic.Uint64
	read, reused                       atomic.Uint64 // bytes: read so far, and taken over without reading
	skipped, excluded, warned          atomic.Uint64
	totalFiles, totalBytes             atomic.Uint64 // once the scan knows
	saying                             sync.Mutex
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
	seen   bool           // there at the last backup
	known  bool           // blobs are all blobs, so the file may be remembered
	whole  bool           // of stepLeave
	ready  chan struct{}  // closed when the rest is there; nil when it is
}

type step int

const (
	stepEntry  step = iota
	stepEnter       // begin the listing of the directory encode
	stepLeave       // end it; whole says that nothing was left out
	stepFinish      // a backed up path is done: state may be kept
)

// run walks the roots and returns the listing of "/".
func (b *backup) run() (vault.Ref, error) {
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
		wg.Go(func() { b.readFiles(w) })
	}
	wg.Go(func() {
		defer close(b.items)
		defer close(b.jobs)
		b.walkRoots()
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
	b.say(b.options.Skipped, path, err)
}

// warn reports an entry that is not in the snapshot as it should be.
func (b *backup) warn(path string, err error) {
	b.warned.Add(1)
	b.say(b.options.Warned, path, err)
}

func (b *backup) say(to func(string, error), path string, err error) {
	b.log.Debug("backup", "path", path, "err", err)
	if to == nil {
		return
	}
	b.saying.Lock()
	defer b.saying.Unlock()
	to(path, err)
}

// report calls Progress regularly until stop is called. Unless the backup is
// over soon, another walk finds out meanwhile how much there is.
func (b *backup) report() (stop func()) {
	if b.options.Progress == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	if b.options.Stdin == nil {
		wg.Go(func() { b.scan(ctx) })
	}
	reported := reportEvery(b.options.Progress, func() Progress {
		stats := b.s.Stats()
		return Progress{Files: b.files.Load(), Bytes: b.read.Load() + b.reused.Load(),
			NewBytes: stats.NewBytes, DuplicateBytes: b.reused.Load() + stats.DuplicateBytes, StoredBytes: stats.StoredBytes,
			TotalFiles: b.totalFiles.Load(), TotalBytes: b.totalBytes.Load()}
	})
	return func() {
		cancel()
		wg.Wait()
		reported()
	}
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
