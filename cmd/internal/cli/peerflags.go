package cli

import (
	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid/node"
)

// addPeerFlags declares the flags that override configuration keys; init and
// join keep what is given, up uses it for one run.
func addPeerFlags(c *cobra.Command) {
	f := c.Flags()
	f.String("name", "", "what others see (default the host name)")
	f.String("site", "", "failure domain; peers with one label are taken to fail together (default the owner)")
	f.String("listen", "", "HOST:PORT of the one port (default a free port, chosen once)")
	f.StringSlice("advertise", nil, "HOST:PORT that others should dial, besides what is found")
	f.String("give", "", "disk given to others, such as 200GB or 200GiB (default 10 % of the free space, at most 50GB)")
	f.Int("slots", 0, "tasks run at once (default half the cores)")
	f.String("redundancy", "", "of own backups: auto or K+M (default auto)")
}

// writeOnlyUsage explains --write-only of init, join and recover.
const writeOnlyUsage = "leave the read key off this machine, and let it neither delete backups nor remove members; restore then asks for the phrase"

// loadConfig reads the configuration of the home with the command's flags.
func (a *app) loadConfig(c *cobra.Command) (config.Result, error) {
	if err := node.CheckHome(a.home); err != nil {
		return config.Result{}, err
	}
	result, err := config.Load(a.home, c.Flags())
	if err != nil {
		return config.Result{}, usageError(c, err)
	}
	return result, nil
}

// setUpConfig completes the configuration of a new home from the machine.
func (a *app) setUpConfig(c *cobra.Command) (node.Config, error) {
	result, err := a.loadConfig(c)
	if err != nil {
		return node.Config{}, err
	}
	given := c.Flags().Changed
	return node.Complete(result.Config, a.home, given("give"), given("slots"))
}
