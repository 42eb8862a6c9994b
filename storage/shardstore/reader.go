package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"gotong/grid/blake3"
	"gotong/storage"
)

// OpenShard implements storage.ShardOpener. A shard that is read whole is
// verified on the way: a bad one ends with storage.ErrCorrupt before its last
// bytes are given.
func (s *Store) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	r, err := s.openShard(ctx, id, off, n)
	if err != nil {
		return nil, &storage.Error{Op: "get", Shard: id, Err: err}
	}
	return r, nil
}

func (s *Store) openShard(ctx context.Context, id storage.ShardID, off, n int64) (*reader, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return nil, err
	}
	file, header, found, err := s.openFile(id)
	if err != nil {
		return nil, err
	}
	size := int64(header.ShardBytes)
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size-n {
		return nil, errors.Join(fmt.Errorf("no range of %d bytes from %d in a shard of %d", n, off, size), file.Close())
	}
	r := &reader{ctx: ctx, store: s, id: id, gen: found.gen, file: file, header: header, off: off, left: n}
	if off == 0 && n == size {
		r.hasher = getHasher()
	}
	return r, nil
}

// openFile opens the file of a shard, stored or in the trash, and checks its
// first page and its length. A bad one is set aside.
func (s *Store) openFile(id storage.ShardID) (File, storage.SignedHeader, shard, error) {
	for {
		found, _, ok := s.cat.find(id)
		if !ok {
			err := storage.ErrNotFound
			if s.cat.isBad(id) {
				err = fmt.Errorf("%w: set aside earlier", storage.ErrCorrupt)
			}
			return nil, storage.SignedHeader{}, shard{}, err
		}
		file, header, err := s.openPath(id, found)
		if err == nil {
			return file, header, found, nil
		}
		missing := errors.Is(err, fs.ErrNotExist)
		if missing {
			// It moves to the trash at most once, and out of it at most once.
			if now, _, ok := s.cat.find(id); !ok || now != found {
				continue
			}
		}
		if missing || errors.Is(err, storage.ErrCorrupt) {
			if !s.quarantine(id, found.gen, err) && missing {
				continue // it was being moved
			}
			err = fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		return nil, storage.SignedHeader{}, shard{}, err
	}
}

func (s *Store) openPath(id storage.ShardID, found shard) (File, storage.SignedHeader, error) {
	file, err := s.fs.Open(found.path(id.Segment))
	if err != nil {
		return nil, storage.SignedHeader{}, err
	}
	header, err := readHeader(file, id, make([]byte, pageBytes))
	if err != nil {
		return nil, header, errors.Join(err, file.Close())
	}
	return file, header, nil
}

// reader reads a shard or a range of one.
type reader struct {
	ctx    context.Context
	store  *Store
	id     storage.ShardID
	gen    generation
	file   File
	header storage.SignedHeader
	off    int64 // in the payload
	left   int64
	hasher *blake3.Hasher // nil for a range
	err    error
}

// Header implements storage.ShardReader.
func (r *reader) Header() storage.SignedHeader { return r.header }

// Holders implements storage.ShardReader.
func (r *reader) Holders() []storage.Holder { return readHolders(r.file) }

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil && r.left == 0 {
		r.err = io.EOF
	}
	if r.err == nil {
		r.err = errors.Join(r.ctx.Err(), r.store.check())
	}
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	p = p[:min(int64(len(p)), r.left)]
	n, err := r.file.ReadAt(p, payloadOffset+r.off)
	if n < len(p) {
		return 0, r.bad(fmt.Errorf("read: %w", err))
	}
	r.off += int64(n)
	r.left -= int64(n)
	if r.hasher != nil {
		_, _ = r.hasher.Write(p) // cannot fail
		if r.left == 0 && r.hasher.Sum256() != r.header.Roots[r.id.Index] {
			return 0, r.bad(errors.New("the bytes do not match the root in the header"))
		}
	}
	return n, nil
}

// bad sets the shard aside. The bytes at hand are not given away.
func (r *reader) bad(cause error) error {
	cause = fmt.Errorf("%w: %w", storage.ErrCorrupt, cause)
	r.store.quarantine(r.id, r.gen, cause)
	r.err = &storage.Error{Op: "get", Shard: r.id, Err: cause}
	return r.err
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.file == nil {
		return nil
	}
	if r.hasher != nil {
		hashers.Put(r.hasher)
		r.hasher = nil
	}
	err := r.file.Close()
	r.file = nil
	if r.err == nil {
		r.err = errors.New("shard reader is closed")
	}
	return err
}

// verifyBuffer is what Verify reads at once.
const verifyBuffer = 256 << 10

var verifyBuffers = sync.Pool{New: func() any { return new([verifyBuffer]byte) }}

// Verify reads a whole shard and compares it with its root. A bad one is set
// aside and reported as storage.ErrCorrupt; storage.ErrNotFound when there is
// none.
func (s *Store) Verify(ctx context.Context, id storage.ShardID) error {
	r, err := s.openShard(ctx, id, 0, -1)
	if err != nil {
		return &storage.Error{Op: "verify", Shard: id, Err: err}
	}
	defer r.Close()
	buffer := verifyBuffers.Get().(*[verifyBuffer]byte)
	defer verifyBuffers.Put(buffer)
	for err == nil {
		_, err = r.Read(buffer[:])
	}
	if err != io.EOF {
		return &storage.Error{Op: "verify", Shard: id, Err: err}
	}
	return nil
}
