"""When a training is hopeless: a rule that looks at its own errors alone.

What a candidate's training comes to must not depend on what else was trained before it or beside it: the same seed
gives the same records. So the measure is fixed for all, the RMSE of predicting the mean of the training targets for
every validation clip, of which a network that has learnt something leaves a part. Real data have networks that never
leave it (docs/architecture.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.models.genes import Checked, gene


@dataclass(frozen=True)
class EarlyStopping(Checked):
    """After a share `after` of its epochs a training stops whose lowest validation RMSE so far is more than `above`
    times that of the mean predictor. Both are lists of the same length, one entry for each look; empty for no rule.
    """

    after: tuple[float, ...] = gene((), minimum=0.0, maximum=1.0)
    above: tuple[float, ...] = gene((), minimum=0.0)

    def validate(self) -> None:
        if len(self.after) != len(self.above):
            raise ValueError(
                f"after has {len(self.after)} values and above {len(self.above)}: expected one of both for each look"
            )

    def limit(self, epoch: int, epochs: int) -> float | None:
        """The share of the mean predictor's RMSE that may not be exceeded after `epoch` (from 1) of `epochs`.

        None where nobody looks, as after the last epoch: nothing can be saved there.
        """
        looks = zip(self.after, self.above, strict=True)
        # Less a little: 0.3 of 10 epochs are 3, whatever the rounding of 0.3 makes of it.
        limits = {max(1, math.ceil(share * epochs - 1e-9)): limit for share, limit in looks}
        return limits.get(epoch) if epoch < epochs else None

    def hopeless(self, errors: Sequence[float], epochs: int, mean_rmse: float) -> bool:
        """Whether a training of `epochs` epochs stops that had the validation RMSEs `errors`, one for each epoch so
        far; `mean_rmse` is the mean predictor's."""
        limit = self.limit(len(errors), epochs)
        return limit is not None and min(errors) > limit * mean_rmse
