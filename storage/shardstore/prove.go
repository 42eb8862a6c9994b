package shardstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"gotong/storage"
	"gotong/storage/erasure"
)

const (
	maxTreeBytes = 4 << 20 // trees kept, of 0.4 % of their shards
	makingTrees  = 2       // shards read at once to make their trees
)

// treeCache keeps the trees of the shards that were proved last.
type treeCache struct {
	making chan struct{} // a place for each
	mu     sync.Mutex
	trees  map[generation]*erasure.Outboard
	order  []generation // oldest first
	bytes  int
}

func newTreeCache() *treeCache {
	return &treeCache{making: make(chan struct{}, makingTrees), trees: map[generation]*erasure.Outboard{}}
}

func (c *treeCache) get(gen generation) *erasure.Outboard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trees[gen]
}

func (c *treeCache) put(gen generation, tree *erasure.Outboard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trees[gen] != nil {
		return
	}
	c.trees[gen] = tree
	c.order = append(c.order, gen)
	c.bytes += tree.Size()
	for c.bytes > maxTreeBytes && len(c.order) > 1 {
		c.bytes -= c.trees[c.order[0]].Size()
		delete(c.trees, c.order[0])
		c.order = c.order[1:]
	}
}

// Prove implements storage.ShardProver. The first proof of a shard reads all of
// it; the next ones, while its tree is kept, read their groups only.
func (s *Store) Prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	proofs, err := s.prove(ctx, id, groups)
	if err != nil {
		return nil, &storage.Error{Op: "prove", Shard: id, Err: err}
	}
	return proofs, nil
}

func (s *Store) prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	if err := errors.Join(ctx.Err(), s.check()); err != nil {
		return nil, err
	}
	if len(groups) < 1 || len(groups) > storage.MaxProofGroups {
		return nil, fmt.Errorf("%d groups at once, want 1 to %d", len(groups), storage.MaxProofGroups)
	}
	file, header, found, err := s.openFile(id)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for _, group := range groups {
		if group < 0 || group >= storage.ProofGroups(header.ShardBytes) {
			return nil, fmt.Errorf("no group %d in a shard of %d bytes", group, header.ShardBytes)
		}
	}
	payload := io.NewSectionReader(file, payloadOffset, int64(header.ShardBytes))
	bad := func(cause error) error {
		cause = fmt.Errorf("%w: %w", storage.ErrCorrupt, cause)
		s.quarantine(id, found.gen, cause)
		return cause
	}
	tree := s.trees.get(found.gen)
	if tree == nil {
		if tree, err = s.makeTree(ctx, payload, header.ShardBytes); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, bad(err)
		}
		if tree.Root() != header.Roots[id.Index] {
			return nil, bad(errors.New("the bytes do not match the root in the header"))
		}
		s.trees.put(found.gen, tree)
	}
	proofs := make([][]byte, len(groups))
	for i, group := range groups {
		if proofs[i], err = tree.Prove(payload, group); err != nil {
			return nil, bad(err)
		}
	}
	return proofs, nil
}

// makeTree reads a whole shard; a few at once.
func (s *Store) makeTree(ctx context.Context, payload *io.SectionReader, size int) (*erasure.Outboard, error) {
	select {
	case s.trees.making <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.trees.making }()
	return erasure.NewOutboard(&contextReader{ctx, payload}, size)
}

// contextReader stops when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
