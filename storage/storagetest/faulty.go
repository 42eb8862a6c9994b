package storagetest

import (
	"context"
	"iter"
	"sync"
	"time"

	"gotong/grid"
	"gotong/storage"
)

// Faults says how a Faulty misbehaves. The zero value behaves.
type Faults struct {
	Down    error         // every call fails with it
	Delay   time.Duration // before every call, and before every Read and Write
	Create  error         // CreateShard fails with it
	Write   error         // Write fails with it
	Commit  error         // Commit fails with it, storing nothing
	Forget  bool          // Commit succeeds, storing nothing
	Open    error         // OpenShard fails with it
	Read    error         // Read fails with it, after the first bytes
	Garbage bool          // Read and Prove give altered bytes, without an error
	Heads   error         // PutHeads, Heads and HeadHistory fail with it
	Delete  error         // PutDeletions and Deletions fail with it
	Prove   error         // Prove fails with it
}

// Faulty wraps a store and misbehaves as told. It is safe for concurrent use.
type Faulty struct {
	store  storage.RemoteShards
	mu     sync.Mutex
	faults Faults
}

// NewFaulty returns a wrapper of store that behaves, until Set.
func NewFaulty(store storage.RemoteShards) *Faulty { return &Faulty{store: store} }

// Set says how to misbehave from now on; it governs open readers and writers too.
func (f *Faulty) Set(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// begin returns the faults in force after the delay that they ask for.
func (f *Faulty) begin(ctx context.Context) (Faults, error) {
	f.mu.Lock()
	faults := f.faults
	f.mu.Unlock()
	if faults.Delay > 0 {
		timer := time.NewTimer(faults.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return faults, ctx.Err()
		}
	}
	return faults, faults.Down
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// CreateShard implements storage.ShardCreator.
func (f *Faulty) CreateShard(ctx context.Context, header storage.SignedHeader, index int, holders []storage.Holder) (storage.ShardWriter, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Create); err != nil {
		return nil, err
	}
	w, err := f.store.CreateShard(ctx, header, index, holders)
	if err != nil {
		return nil, err
	}
	return &faultyWriter{w, ctx, f}, nil
}

type faultyWriter struct {
	storage.ShardWriter
	ctx context.Context
	f   *Faulty
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	faults, err := w.f.begin(w.ctx)
	if err := first(err, faults.Write); err != nil {
		return 0, err
	}
	return w.ShardWriter.Write(p)
}

func (w *faultyWriter) Commit() error {
	faults, err := w.f.begin(w.ctx)
	if err := first(err, faults.Commit); err != nil || faults.Forget {
		w.ShardWriter.Abort()
		return err
	}
	return w.ShardWriter.Commit()
}

// OpenShard implements storage.ShardOpener.
func (f *Faulty) OpenShard(ctx context.Context, id storage.ShardID, off, n int64) (storage.ShardReader, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Open); err != nil {
		return nil, err
	}
	r, err := f.store.OpenShard(ctx, id, off, n)
	if err != nil {
		return nil, err
	}
	return &faultyReader{ShardReader: r, ctx: ctx, f: f}, nil
}

type faultyReader struct {
	storage.ShardReader
	ctx   context.Context
	f     *Faulty
	given bool
}

func (r *faultyReader) Read(p []byte) (int, error) {
	faults, err := r.f.begin(r.ctx)
	if err != nil {
		return 0, err
	}
	if faults.Read != nil && r.given {
		return 0, faults.Read
	}
	if faults.Read != nil && len(p) > 1 {
		p = p[:len(p)/2] // something is left to fail on
	}
	n, err := r.ShardReader.Read(p)
	r.given = r.given || n > 0
	if faults.Garbage && n > 0 {
		p[n/2] ^= 0x80
	}
	return n, err
}

// Have implements storage.ShardStater.
func (f *Faulty) Have(ctx context.Context, ids []storage.SegmentID) ([]storage.SegmentAnswer, error) {
	if _, err := f.begin(ctx); err != nil {
		return nil, err
	}
	return f.store.Have(ctx, ids)
}

// PutHeads implements storage.HeadStore.
func (f *Faulty) PutHeads(ctx context.Context, raw [][]byte) error {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Heads); err != nil {
		return err
	}
	return f.store.PutHeads(ctx, raw)
}

// Heads implements storage.HeadStore.
func (f *Faulty) Heads(ctx context.Context, owner grid.OwnerID) ([]storage.VaultHeads, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Heads); err != nil {
		return nil, err
	}
	return f.store.Heads(ctx, owner)
}

// HeadHistory implements storage.HeadStore.
func (f *Faulty) HeadHistory(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, below storage.HeadCursor) ([][]byte, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Heads); err != nil {
		return nil, err
	}
	return f.store.HeadHistory(ctx, owner, vault, below)
}

// List implements storage.ShardLister.
func (f *Faulty) List(ctx context.Context, vault storage.VaultID) iter.Seq2[storage.ShardID, error] {
	if _, err := f.begin(ctx); err != nil {
		return func(yield func(storage.ShardID, error) bool) { yield(storage.ShardID{}, err) }
	}
	return f.store.List(ctx, vault)
}

// PutDeletions implements storage.DeletionStore.
func (f *Faulty) PutDeletions(ctx context.Context, raw [][]byte) error {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Delete); err != nil {
		return err
	}
	return f.store.PutDeletions(ctx, raw)
}

// Deletions implements storage.DeletionStore.
func (f *Faulty) Deletions(ctx context.Context, owner grid.OwnerID, vault storage.VaultID, after uint64) ([][]byte, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Delete); err != nil {
		return nil, err
	}
	return f.store.Deletions(ctx, owner, vault, after)
}

// Prove implements storage.ShardProver.
func (f *Faulty) Prove(ctx context.Context, id storage.ShardID, groups []int) ([][]byte, error) {
	faults, err := f.begin(ctx)
	if err := first(err, faults.Prove); err != nil {
		return nil, err
	}
	proofs, err := f.store.Prove(ctx, id, groups)
	if faults.Garbage {
		for _, proof := range proofs {
			proof[len(proof)-1] ^= 0x80
		}
	}
	return proofs, err
}
