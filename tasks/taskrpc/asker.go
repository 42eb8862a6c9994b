package taskrpc

import (
	"fmt"

	"gotong/grid"
	"gotong/storage"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// grantsKept bounds the grants that are remembered as verified.
const grantsKept = 256

// openGrant verifies the grant of a job and asks Config.Authorize about it. To
// verify takes two signatures, so what was verified is remembered; whether it
// holds is asked each time.
func (s *Service) openGrant(raw []byte) (storage.SignedJobGrant, error) {
	s.mu.Lock()
	g, known := s.grants[string(raw)]
	s.mu.Unlock()
	if !known {
		var err error
		if g, err = storage.OpenJobGrant(raw); err != nil {
			return g, fmt.Errorf("%w: %w", tasks.ErrRefused, err)
		}
		s.mu.Lock()
		if len(s.grants) >= grantsKept {
			clear(s.grants)
		}
		s.grants[string(raw)] = g
		s.mu.Unlock()
	}
	if err := s.cfg.Authorize(g); err != nil {
		return g, fmt.Errorf("%w: %w", tasks.ErrRefused, err)
	}
	return g, nil
}

// job returns for whom a caller asks.
func (s *Service) job(caller grid.PeerID, h scheduler.Header) (Job, error) {
	g, err := s.openGrant(h.Grant)
	if err != nil {
		return Job{}, err
	}
	if g.Job != h.Job {
		return Job{}, fmt.Errorf("%w: the grant is for job %s", tasks.ErrRefused, tasks.JobID(g.Job).Short())
	}
	return Job{
		Asker: Asker{Peer: caller, Owner: g.Owner, Job: h.Job},
		Key:   h.Key, Grant: h.Grant, Expires: g.Expires, StoreOutputs: h.StoreOutputs, StoreStdout: h.StoreStdout,
	}, nil
}

// asker returns for whom a caller hands over a content.
func (s *Service) asker(caller grid.PeerID, grant []byte) (Asker, error) {
	g, err := s.openGrant(grant)
	return Asker{Peer: caller, Owner: g.Owner, Job: g.Job}, err
}
