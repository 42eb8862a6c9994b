package shardstore

import (
	"fmt"

	"gotong/storage"
)

// jobShare: the segments of an owner's jobs may take one part in so many of what
// the owner may have here, so that jobs never keep backups out.
const jobShare = 2

// jobBook counts what each job stores: the segments of which a shard is stored,
// in the trash or being written, each once.
type jobBook struct {
	bytes map[vaultKey]int64
	refs  map[storage.SegmentID]int // shards of each segment of a job
}

func newJobBook() jobBook {
	return jobBook{map[vaultKey]int64{}, map[storage.SegmentID]int{}}
}

// account counts a shard of a segment in, with sign 1, or out, with −1.
func (b *jobBook) account(job vaultKey, id storage.SegmentID, bytes int64, sign int) {
	before := b.refs[id]
	b.refs[id] += sign
	switch {
	case before == 0:
		b.bytes[job] += bytes
	case b.refs[id] == 0:
		delete(b.refs, id)
		if b.bytes[job] -= bytes; b.bytes[job] == 0 {
			delete(b.bytes, job)
		}
	}
}

// paddedBytes is what a segment counts for its job.
func paddedBytes(h storage.SignedHeader) int64 { return int64(h.ShardBytes) * int64(h.Redundancy.K) }

// mayStoreForJob returns why a shard of a job is not taken, or nil: there is too
// much of this job, or of all jobs of the owner, here. limit is the owner's;
// negative: none. c.mu is held.
func (c *catalogue) mayStoreForJob(header storage.SignedHeader, account *usage, size, limit int64) error {
	if header.Kind != storage.GrantJob {
		return nil
	}
	has, more := c.jobs.bytes[vaultKey{header.Owner, header.Vault}], int64(0)
	if c.jobs.refs[header.ID] == 0 {
		more = paddedBytes(header)
	}
	switch most := header.JobGrant.OutputBytes; {
	case has+more > most:
		return fmt.Errorf("job %s has %d of the %d bytes here that its grant allows: %w", header.Vault.Short(), has, most, storage.ErrQuota)
	case limit >= 0 && account.jobs+size > limit/jobShare:
		return fmt.Errorf("jobs of owner %s have %d of %d bytes here: %w", header.Owner.Short(), account.jobs, limit/jobShare, storage.ErrQuota)
	}
	return nil
}
