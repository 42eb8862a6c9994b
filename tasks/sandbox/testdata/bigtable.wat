;; A module whose tables begin with two million entries.
(module
  (table 1000000 funcref)
  (table 1000000 funcref)
  (func (export "_start")))
