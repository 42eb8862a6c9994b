package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/tasks"
)

// fetchIdle is how long a worker may send nothing of an output that is read.
const fetchIdle = 30 * time.Second

// heldLimit is how long it may take to hear who has an output that is stored.
const heldLimit = time.Minute

// Accepted is the one result of a task that counts. It and its outputs are
// valid until the function that received it returns.
type Accepted struct {
	tasks.Result
	Proof    Proof // zero when the task was given up or never ran
	Attempts int   // runs, the accepted one included

	// Votes are those who gave this result, its own peer first. Evidence is
	// what others gave instead and is wrong: the peers are caught, see
	// Config.Caught.
	Votes    []Vote
	Evidence []Vote
	// Checked: as many distinct sites agree as the verification wants.
	Checked bool
	// Trust is what is thought now of those whose results were compared for this
	// one; see Config.Trust.
	Trust map[grid.PeerID]int
	// FromCache: nothing ran, Config.Known had it.
	FromCache bool
	// Replaces is not zero when the task was delivered before, or Config.Known
	// had it, with a result of a peer that was caught since: the digest of that
	// result. It may be the digest of this one too.
	Replaces [32]byte

	staged  *staged
	digest  [32]byte // of Result, when a worker gave it
	known   bool     // Config.Known had it
	revises bool     // the task was delivered before in this run
}

// OpenOutput opens one of a.Outputs, or a.LargeStdout, whose bytes were verified. The
// caller closes.
func (a *Accepted) OpenOutput(out tasks.Output) (io.ReadCloser, error) {
	if out.Inline() {
		return io.NopCloser(bytes.NewReader(out.Data)), nil
	}
	if a.staged == nil {
		return nil, fmt.Errorf("output %q was not fetched: %w", out.Name, os.ErrNotExist)
	}
	return os.Open(a.staged.path(out.Content))
}

// bytes returns the memory that the result occupies until it is delivered, and
// what it occupies in the stage.
func (a *Accepted) bytes() (memory, staged int64) {
	n := len(a.Stdout) + len(a.Stderr) + len(a.Why) + len(a.Proof.Raw)
	for _, out := range a.Outputs {
		n += len(out.Name) + len(out.Data)
	}
	if a.staged != nil {
		staged = a.staged.bytes
	}
	return int64(n), staged
}

func (a *Accepted) discard() {
	if a.staged != nil {
		os.RemoveAll(a.staged.dir)
	}
}

// stage is the directory in which fetched outputs wait for delivery. It is made when
// the first comes.
type stage struct {
	parent string
	once   sync.Once
	dir    string
	err    error
	count  atomic.Int64
}

// staged is the outputs of one result.
type staged struct {
	dir   string
	bytes int64
}

func (s *staged) path(id tasks.ContentID) string { return filepath.Join(s.dir, id.String()) }

// make makes the directory, once.
func (s *stage) make() error {
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp(s.parent, "outputs-"); s.err != nil {
			s.err = fmt.Errorf("place for outputs: %w", s.err)
		}
	})
	return s.err
}

// close removes the directory. No fetch runs any more.
func (s *stage) close() error {
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// fetch reads and verifies what of r did not come inline, outputs if they are wanted,
// and has held say of what is stored elsewhere whether it is. The caller removes what
// is returned, also beside an error.
func (s *stage) fetch(ctx context.Context, w Worker, held func(context.Context, tasks.Stored) error, r tasks.Result, outputs bool) (*staged, error) {
	if err := s.make(); err != nil {
		return nil, err
	}
	got := &staged{dir: filepath.Join(s.dir, strconv.FormatInt(s.count.Add(1), 10))}
	if err := os.Mkdir(got.dir, 0o700); err != nil {
		return nil, err
	}
	for _, out := range r.Large(outputs) {
		if out.Stored != nil {
			if err := isHeld(ctx, held, *out.Stored); err != nil {
				return got, fmt.Errorf("output %q: %w", out.Name, err)
			}
			continue
		}
		if _, err := os.Lstat(got.path(out.Content)); err == nil {
			continue // another output with the same bytes
		}
		if err := fetchOne(ctx, w, r.Task, *out, got.path(out.Content)); err != nil {
			return got, fmt.Errorf("output %q: %w", out.Name, err)
		}
		got.bytes += out.Size
	}
	return got, nil
}

// isHeld asks whether a content is where the worker says.
func isHeld(ctx context.Context, held func(context.Context, tasks.Stored) error, s tasks.Stored) error {
	if held == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, heldLimit)
	defer cancel()
	return held(ctx, s)
}

func fetchOne(ctx context.Context, w Worker, task tasks.TaskID, out tasks.Output, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(fetchIdle, func() { cancel(fmt.Errorf("nothing came for %s", fetchIdle)) })
	defer idle.Stop()
	from, err := w.OpenOutput(ctx, task, out.Content)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyVerified(to, &watched{from, idle}, out)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errors.Join(err, to.Close())
}

// copyVerified copies exactly the bytes that out names.
func copyVerified(to io.Writer, from io.Reader, out tasks.Output) error {
	hash := blake3.New()
	n, err := io.Copy(io.MultiWriter(to, hash), io.LimitReader(from, out.Size+1))
	switch {
	case err != nil:
		return err
	case n != out.Size || hash.Sum256() != out.Content:
		return fmt.Errorf("%d bytes of %d: %w", n, out.Size, tasks.ErrContent)
	}
	return nil
}

// watched puts the timer off whenever something was read.
type watched struct {
	io.Reader
	idle *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.idle.Reset(fetchIdle)
	}
	return n, err
}
