package shardstore

import (
	"fmt"

	"gotong/storage"
)

// jobShare: the segments of an owner's jobs may take one part in so many of what
// the owner may have here, so that jobs never keep backups out.
const jobShare = 2

// mayStoreForJob returns why a shard of a job is not taken, or nil: there is too
// much of this job, or of all jobs of the owner, here. limit is the owner's;
// negative: none. c.mu is held.
func (c *catalogue) mayStoreForJob(header storage.SignedHeader, account *usage, size, limit int64) error {
	if header.Kind != storage.GrantJob {
		return nil
	}
	r := header.Redundancy
	most := header.JobGrant.OutputBytes / int64(r.K) * int64(r.N)
	most += header.JobGrant.OutputBytes % int64(r.K) * int64(r.N) / int64(r.K)
	has := c.jobs[vaultKey{header.Owner, header.Vault}]
	switch {
	case has+int64(header.ShardBytes) > most:
		return fmt.Errorf("job %s has %d bytes here, its grant allows %d: %w", header.Vault.Short(), has, most, storage.ErrQuota)
	case limit >= 0 && account.jobs+size > limit/jobShare:
		return fmt.Errorf("jobs of owner %s have %d of %d bytes here: %w", header.Owner.Short(), account.jobs, limit/jobShare, storage.ErrQuota)
	}
	return nil
}

// accountJob counts a shard of a job: size on disk, payload of the shard.
func (c *catalogue) accountJob(job vaultKey, u *usage, size, payload int64) {
	u.jobs += size
	if c.jobs[job] += payload; c.jobs[job] == 0 {
		delete(c.jobs, job)
	}
}
