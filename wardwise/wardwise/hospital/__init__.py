"""A whole day: prescriptions, dispensing machine, robots, wards.

`hospital_day` plans one and lives through it; the other names are its parts.
"""

from wardwise.hospital.day import Figures, HospitalDay, compare_quantiles, hospital_day, live_days
from wardwise.hospital.deliveries import Delivery, Status, with_deliveries
from wardwise.hospital.dispensing import Dispensing, Round, Run, dispense, live_rounds
from wardwise.hospital.lived import Brought, LivedDay, drive, live
from wardwise.hospital.prescriptions import draw_prescriptions, wards_of, without_medicine

__all__ = [
    "Brought",
    "Delivery",
    "Dispensing",
    "Figures",
    "HospitalDay",
    "LivedDay",
    "Round",
    "Run",
    "Status",
    "compare_quantiles",
    "dispense",
    "draw_prescriptions",
    "drive",
    "hospital_day",
    "live",
    "live_days",
    "live_rounds",
    "wards_of",
    "with_deliveries",
    "without_medicine",
]
