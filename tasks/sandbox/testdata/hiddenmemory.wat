;; The same, with the memory not exported.
(module
  (memory 16384)
  (func (export "_start")))
