package worker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"gotong/grid/blake3"
	"gotong/tasks"
)

// copyBytes is the size of the buffer through which content is copied.
const copyBytes = 128 << 10

// Store keeps modules, inputs and outputs by their hash, within a bound of
// bytes; what was used least recently goes first. It is a cache: content is
// verified when it is put and, after a restart, when it is first used, and it is
// not synced to disk.
type Store struct {
	root     *os.Root
	maxBytes int64

	mu      sync.Mutex
	entries map[tasks.ContentID]*list.Element // of *entry
	order   *list.List                        // front: used last
	used    int64                             // bytes of entries and of content on its way
	number  uint64                            // of the last temporary file
}

type entry struct {
	id       tasks.ContentID
	size     int64
	pins     int
	verified bool
}

// Names below the store's directory.
const (
	contentDir  = "content"
	incomingDir = "incoming"
)

// openStore opens the store in dir, which exists. Content that is there is
// known again; unfinished content is removed.
func openStore(dir string, maxBytes int64) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{root: root, maxBytes: maxBytes, entries: make(map[tasks.ContentID]*list.Element), order: list.New()}
	if err := s.scan(); err != nil {
		root.Close()
		return nil, fmt.Errorf("content store: %w", err)
	}
	return s, nil
}

func (s *Store) close() error { return s.root.Close() }

// scan learns what is stored. Foreign files are left alone; a store that is
// above a bound made smaller shrinks.
func (s *Store) scan() error {
	if err := s.root.RemoveAll(incomingDir); err != nil {
		return err
	}
	for _, dir := range []string{contentDir, incomingDir} {
		if err := s.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	err := fs.WalkDir(s.root.FS(), contentDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		id, err := tasks.ParseContentID(d.Name())
		if err != nil || path != filepath.ToSlash(contentPath(id)) || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s.insert(&entry{id: id, size: info.Size()})
		return nil
	})
	s.evict(0)
	return err
}

func contentPath(id tasks.ContentID) string {
	name := id.String()
	return filepath.Join(contentDir, name[:2], name)
}

// insert adds an entry; s.mu is held, or s is not shared yet.
func (s *Store) insert(e *entry) {
	s.entries[e.id] = s.order.PushFront(e)
	s.used += e.size
}

// get finds an entry and makes it the one used last; s.mu is held.
func (s *Store) get(id tasks.ContentID) *entry {
	element := s.entries[id]
	if element == nil {
		return nil
	}
	s.order.MoveToFront(element)
	return element.Value.(*entry)
}

// remove forgets an entry and its file; s.mu is held.
func (s *Store) remove(e *entry) {
	s.order.Remove(s.entries[e.id])
	delete(s.entries, e.id)
	s.used -= e.size
	s.root.Remove(contentPath(e.id))
}

// evict makes room for bytes more and reports whether it could; s.mu is held.
func (s *Store) evict(bytes int64) bool {
	if bytes > s.maxBytes {
		return false
	}
	for element := s.order.Back(); element != nil && s.used > s.maxBytes-bytes; {
		previous := element.Prev()
		if e := element.Value.(*entry); e.pins == 0 {
			s.remove(e)
		}
		element = previous
	}
	return s.used <= s.maxBytes-bytes
}

// reserve takes room for content on its way.
func (s *Store) reserve(bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.evict(bytes) {
		return fmt.Errorf("%w: %d bytes more do not fit", tasks.ErrStoreFull, bytes)
	}
	s.used += bytes
	return nil
}

func (s *Store) unreserve(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= bytes
}

// Has reports whether the content is here.
func (s *Store) Has(id tasks.ContentID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id) != nil
}

// Missing returns those of ids that are not here, in their order.
func (s *Store) Missing(ids []tasks.ContentID) []tasks.ContentID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []tasks.ContentID
	for _, id := range ids {
		if s.get(id) == nil {
			missing = append(missing, id)
		}
	}
	return missing
}

// Stats returns how many contents are stored and their bytes.
func (s *Store) Stats() (contents int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), s.used
}

// Put stores size bytes of r that hash to id. When the content is here already
// it returns nil without reading. The error is tasks.ErrContent when r has other
// bytes or another length, tasks.ErrStoreFull when there is no room, or r's.
func (s *Store) Put(ctx context.Context, id tasks.ContentID, size int64, r io.Reader) error {
	if size < 0 {
		return fmt.Errorf("%w: size %d", tasks.ErrInvalid, size)
	}
	if s.Has(id) {
		return nil
	}
	got, err := s.add(ctx, size, r, func(got tasks.ContentID) error {
		if got != id {
			return fmt.Errorf("%w: want %s, got %s", tasks.ErrContent, id.Short(), got.Short())
		}
		return nil
	}, 0)
	if err == nil && got != id {
		err = tasks.ErrContent
	}
	return err
}

// add stores size bytes of r if check likes their hash, with as many pins.
func (s *Store) add(ctx context.Context, size int64, r io.Reader, check func(tasks.ContentID) error, pins int) (tasks.ContentID, error) {
	if err := s.reserve(size); err != nil {
		return tasks.ContentID{}, err
	}
	defer s.unreserve(size)
	temp := s.tempName()
	id, err := s.receive(ctx, temp, size, r)
	if err == nil {
		err = check(id)
	}
	if err == nil {
		err = s.commit(id, size, temp, pins)
	}
	if err != nil {
		s.root.Remove(temp)
		return tasks.ContentID{}, err
	}
	return id, nil
}

func (s *Store) tempName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return filepath.Join(incomingDir, fmt.Sprint(s.number))
}

// receive writes r, which must have size bytes, to a temporary file.
func (s *Store) receive(ctx context.Context, temp string, size int64, r io.Reader) (id tasks.ContentID, err error) {
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return id, err
	}
	hash := blake3.New()
	// One byte more than promised tells a longer source.
	source := &ctxReader{ctx, io.LimitReader(r, size+1)}
	n, err := io.CopyBuffer(io.MultiWriter(f, hash), source, make([]byte, min(copyBytes, size+1)))
	if err == nil && n != size {
		err = fmt.Errorf("%w: it has not the %d bytes that were promised", tasks.ErrContent, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return id, err
	}
	hash.Sum(id[:0])
	return id, nil
}

// commit gives a received file its name.
func (s *Store) commit(id tasks.ContentID, size int64, temp string, pins int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(id); e != nil {
		e.pins += pins
		s.root.Remove(temp)
		return nil
	}
	path := contentPath(id)
	if err := s.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := s.root.Rename(temp, path); err != nil {
		return err
	}
	s.insert(&entry{id: id, size: size, pins: pins, verified: true})
	return nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// pin keeps all of ids here until unpin, or nothing and returns a
// *tasks.MissingContent.
func (s *Store) pin(ids []tasks.ContentID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []tasks.ContentID
	for _, id := range ids {
		if s.entries[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return &tasks.MissingContent{IDs: missing}
	}
	for _, id := range ids {
		s.get(id).pins++
	}
	return nil
}

func (s *Store) unpin(ids []tasks.ContentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if element := s.entries[id]; element != nil {
			element.Value.(*entry).pins--
		}
	}
}
