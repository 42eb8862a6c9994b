package node

import (
	"context"
	"time"
)

// keepLimits keeps the transfers of this peer within what the configuration
// allows at the time of the day. It looks every minute, so a clock that is set
// or an hour that comes twice needs no thought.
func (p *Peer) keepLimits(ctx context.Context) error {
	for {
		changed := p.live.changed()
		now := time.Now()
		up, down := p.cfg().Network.At(now)
		p.net.Limit(uint64(up), uint64(down))
		timer := time.NewTimer(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}
