package shardstore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sync/errgroup"

	"gotong/grid"
	"gotong/storage"
)

const (
	scanWorkers = 8  // directories read at once while opening
	maxBad      = 64 // shards set aside; the rest is deleted
)

// scanShards reads the first page of every shard, removes unfinished files and
// sets bad ones aside.
func (s *Store) scanShards() error {
	dirs, err := s.fs.ReadDir(shardsDir)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(scanWorkers)
	for _, dir := range dirs {
		if dir.IsDir() {
			group.Go(func() error { return s.scanDir(dir.Name()) })
		}
	}
	return group.Wait()
}

func (s *Store) scanDir(dir string) error {
	path := shardsDir + "/" + dir
	entries, err := s.fs.ReadDir(path)
	if err != nil {
		return err
	}
	page := make([]byte, pageBytes)
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), tempSuffix) {
			if err := s.fs.Remove(path + "/" + entry.Name()); err != nil {
				return err
			}
			continue
		}
		id, err := storage.ParseShardID(entry.Name())
		if err != nil || fanOut(id.Segment) != dir || !entry.Type().IsRegular() {
			s.log.Warn("foreign file among the shards", "file", path+"/"+entry.Name())
			continue
		}
		if err := s.scanShard(id, page); err != nil {
			return err
		}
	}
	return nil
}

// scanShard enters one file into the catalogue. A file that cannot be read is
// as bad as an altered one.
func (s *Store) scanShard(id storage.ShardID, page []byte) error {
	f, err := s.fs.Open(shardPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shard %s: %w", id, err)
	}
	defer f.Close()
	header, err := readHeader(f, id, page)
	if err != nil {
		size, _ := f.Size() // only for the account
		s.setAside(id, shardPath(id), grid.OwnerID{}, size, err)
		return nil
	}
	s.cat.add(header, id.Index)
	return nil
}

// readHeader reads and checks the first page and the size of a shard file.
func readHeader(f File, id storage.ShardID, page []byte) (storage.SignedHeader, error) {
	if n, err := f.ReadAt(page, 0); n < len(page) {
		return storage.SignedHeader{}, fmt.Errorf("%w: shard file: first page: %w", storage.ErrCorrupt, err)
	}
	header, err := parseHeaderPage(page, id)
	if err != nil {
		return storage.SignedHeader{}, err
	}
	size, err := f.Size()
	if err != nil || size != fileSize(header.ShardBytes) {
		return storage.SignedHeader{}, fmt.Errorf("%w: shard file of %d bytes, want %d", storage.ErrCorrupt, size, fileSize(header.ShardBytes))
	}
	return header, nil
}

// scanBad enters the shards that were set aside before.
func (s *Store) scanBad() error {
	entries, err := s.fs.ReadDir(badDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		id, err := storage.ParseShardID(entry.Name())
		if err != nil {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if _, _, ok := s.cat.find(id); ok || !s.cat.addBad(id, info.Size()) {
			if err := s.fs.Remove(badPath(id)); err != nil {
				return err
			}
		}
	}
	return nil
}
