"""The objectives behind the cards. These modules import torch."""
