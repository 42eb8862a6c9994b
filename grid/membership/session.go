package membership

import (
	"sync"
	"time"
)

// session is one gossip connection to a peer, used both ways whoever dialled.
type session struct {
	Conn
	ours  bool // this side dialled
	since time.Time

	write turn // one writer at a time

	mu       sync.Mutex
	retired  bool // replaced by another one; lingers to read what is under way
	lastRead time.Time
	askedAt  time.Time // zero: no question open
}

func newSession(conn Conn, ours bool) *session {
	now := time.Now()
	return &session{Conn: conn, ours: ours, since: now, lastRead: now, write: newTurn()}
}

// expectRead gives the other side idle time to send the next frame. A retired
// session keeps the deadline that retire set.
func (s *session) expectRead(idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.retired {
		_ = s.SetReadDeadline(time.Now().Add(idle)) // a dead connection fails the read that follows
	}
}

// heard notes that the other side lives.
func (s *session) heard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastRead, s.askedAt = time.Now(), time.Time{}
}

// retire lets the session end after linger: packets under way still arrive.
func (s *session) retire(linger time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	_ = s.SetReadDeadline(time.Now().Add(linger))
}

// liveness says before a write whether the session is dead (a question went
// unanswered for too long), and else whether to ask now.
func (s *session) liveness(now time.Time) (dead, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.askedAt.IsZero():
		return now.Sub(s.askedAt) > answerTimeout, false
	case now.Sub(s.lastRead) > quietBeforeAsk:
		s.askedAt = now
		return false, true
	}
	return false, false
}

// send writes whole frames under a deadline.
func (s *session) send(frames ...[]byte) error {
	s.write.take()
	defer s.write.give()
	if err := s.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	for _, frame := range frames {
		if _, err := s.Write(frame); err != nil {
			return err
		}
	}
	return nil
}
