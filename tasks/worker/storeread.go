package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gotong/grid/blake3"
	"gotong/tasks"
)

// Open returns the content and its size. The caller closes it. Content that is
// not here, or turns out to be damaged, is a *tasks.MissingContent.
func (s *Store) Open(id tasks.ContentID) (*os.File, int64, error) {
	size, err := s.verify(id)
	if err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(contentPath(id))
	if err != nil {
		return nil, 0, s.lose(id, err)
	}
	return f, size, nil
}

// verify hashes content that an earlier run of the program stored.
func (s *Store) verify(id tasks.ContentID) (size int64, err error) {
	s.mu.Lock()
	e := s.get(id)
	verified := e != nil && e.verified
	s.mu.Unlock()
	switch {
	case e == nil:
		return 0, &tasks.MissingContent{IDs: []tasks.ContentID{id}}
	case verified:
		return e.size, nil
	}
	f, err := s.root.Open(contentPath(id))
	if err != nil {
		return 0, s.lose(id, err)
	}
	defer f.Close()
	hash := blake3.New()
	if _, err := io.CopyBuffer(hash, f, make([]byte, copyBytes)); err != nil {
		return 0, s.lose(id, err)
	}
	if hash.Sum256() != id {
		return 0, s.lose(id, tasks.ErrContent)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.verified = true
	return e.size, nil
}

// lose forgets content that cannot be read.
func (s *Store) lose(id tasks.ContentID, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element := s.entries[id]; element != nil {
		s.remove(element.Value.(*entry))
	}
	return fmt.Errorf("%w: %w", &tasks.MissingContent{IDs: []tasks.ContentID{id}}, cause)
}

// readAll returns content of at most max bytes.
func (s *Store) readAll(id tasks.ContentID, max int64) ([]byte, error) {
	f, size, err := s.Open(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > max {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", tasks.ErrInvalid, size, max)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, s.lose(id, err)
	}
	return b, nil
}

// stageAt makes the content appear under a path outside the store.
func (s *Store) stageAt(id tasks.ContentID, path string) error {
	f, _, err := s.Open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	if mayLink && os.Link(filepath.Join(s.root.Name(), contentPath(id)), path) == nil {
		return nil
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(out, f, make([]byte, copyBytes))
	return errors.Join(err, out.Close())
}
